"""Every answer of the horde has a row, every row is acted on, and the documentation holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.sandbox_client import WORKER_KEY, Api
from worker.errors import (
    HordeError,
    HordeOnHold,
    HordeRefused,
    HordeUnreachable,
    JobFate,
    NotAllowed,
    UploadRefused,
)
from worker.horde.accounts import WorkerChanges
from worker.horde.api import Job, Offer, Submission
from worker.horde.client import HordeClient
from worker.horde.refusals import (
    BY_ENDPOINT,
    INVALID_BODY,
    NOWHERE,
    UNREADABLE_BODY,
    Answer,
    Row,
    Rows,
)
from worker.sandbox import Endpoint, Redirect, ReferenceModel, Reply, Sandbox
from worker.sandbox.faults import Effect

DOCUMENT = Path(__file__).parents[3] / "docs" / "answers.md"
AGENT = "AI Horde Worker:24.1.0:https://example.org"
MODEL = "Dreamer Demo"
OFFER = Offer(name="a worker", models=(MODEL,), bridge_agent=AGENT, max_pixels=1024**2)
RAISED: dict[Answer, type[HordeError]] = {
    Answer.STOP: NotAllowed,
    Answer.HOLD: HordeOnHold,
    Answer.RETRY: HordeUnreachable,
    Answer.GIVE_UP: HordeRefused,
    Answer.FAULT: UploadRefused,
}
CALLS: dict[str, tuple[Endpoint, Callable[[HordeClient], object]]] = {
    "generate/pop": (Endpoint.POP, lambda it: it.pop(OFFER)),
    "generate/submit": (Endpoint.SUBMIT, lambda it: it.submit(Submission.ok("an id", 7))),
    "a picture's upload": (
        Endpoint.UPLOAD,
        lambda it: it.upload(f"{it.url}/transient/a.webp", b"a picture"),
    ),
    "find_user, workers/name": (Endpoint.FIND_USER, lambda it: it.whoami()),
    "PUT workers (your command)": (
        Endpoint.MODIFY_WORKER,
        lambda it: it.change_worker("an id", WorkerChanges(maintenance=False)),
    ),
    "status/heartbeat, status/models, teams": (Endpoint.HEARTBEAT, lambda it: it.heartbeat()),
}
ALL_ROWS = [(endpoint, rc) for endpoint, rows in BY_ENDPOINT.items() for rc in rows]


@pytest.fixture(name="horde", scope="module")
def _horde() -> Iterator[Sandbox]:
    with Sandbox(models={MODEL: ReferenceModel(baseline="stable diffusion 1")}) as sandbox:
        yield sandbox


@pytest.fixture(name="sandbox")
def _sandbox(horde: Sandbox) -> Sandbox:
    horde.faults.clear()
    return horde


def client_of(sandbox: Sandbox) -> HordeClient:
    return HordeClient(sandbox.url, WORKER_KEY, timeout=(5, 5), client_agent=AGENT)


def answer_of(rc: str, row: Row) -> Effect:
    """What a server says that means this row."""
    if rc == "HTTP3xx":
        return Redirect("http://127.0.0.1:9/")
    if rc == INVALID_BODY:
        return Reply(row.status, errors={"amount": "21 is greater than 20"})
    if rc == UNREADABLE_BODY or rc.startswith("HTTP"):
        return Reply(row.status)
    return Reply(row.status, rc=rc)


def raised_by(sandbox: Sandbox, endpoint: str, effect: Effect) -> HordeError:
    name, call = CALLS[endpoint]
    sandbox.faults.inject(name, effect, calls=1)
    with client_of(sandbox) as client, pytest.raises(HordeError) as caught:
        call(client)
    return caught.value


def raised_by_no_address(sandbox: Sandbox) -> HordeError:
    with client_of(sandbox) as client, pytest.raises(HordeError) as caught:
        client.upload("file:///a.webp", b"a picture")
    return caught.value


@pytest.mark.parametrize(("endpoint", "rc"), ALL_ROWS)
def test_each_answer_is_acted_on_as_its_row_says(sandbox: Sandbox, endpoint: str, rc: str):
    row = BY_ENDPOINT[endpoint][rc]
    if rc == NOWHERE:
        error = raised_by_no_address(sandbox)
    else:
        error = raised_by(sandbox, endpoint, answer_of(rc, row))
    assert type(error) is RAISED[row.answer]
    match error:
        case NotAllowed(remedy=remedy):
            assert remedy == row.remedy
        case HordeOnHold(remedy=remedy):
            assert (remedy, error.retry_after_seconds) == (row.remedy, row.wait_seconds)
        case HordeUnreachable():
            assert row.remedy in str(error)
            assert error.may_have_worked == row.may_have_worked
        case HordeRefused(remedy=remedy):
            assert (remedy, error.fate, error.status) == (row.remedy, fate_of(row), row.status)
            assert row.remedy in str(error)
        case _:
            pytest.fail(f"{error!r}")


def fate_of(row: Row) -> JobFate:
    return JobFate.OPEN if row.answer is Answer.FAULT else row.fate


@pytest.mark.parametrize(("endpoint", "rc"), ALL_ROWS)
def test_each_row_tells_the_owner_something(endpoint: str, rc: str):
    row = BY_ENDPOINT[endpoint][rc]
    assert row.remedy
    assert (row.wait_seconds > 0) == (row.answer is Answer.HOLD)


@pytest.mark.parametrize("endpoint", BY_ENDPOINT)
@pytest.mark.parametrize("status", [300, 304, 402, 418, 422, 431, 451, 507, 599])
def test_a_status_that_nobody_expects_has_an_owner_too(
    sandbox: Sandbox, endpoint: str, status: int
):
    error = raised_by(sandbox, endpoint, Reply(status, rc="NewOfTomorrow"))
    is_ours = 400 <= status < 500
    assert isinstance(error, HordeRefused if is_ours else HordeUnreachable)


def test_an_rc_that_nobody_knows_is_shown_but_not_trusted(sandbox: Sandbox):
    error = raised_by(sandbox, "generate/pop", Reply(418, rc="New\n\x1b[31m" + "x" * 1000))
    assert str(error).isprintable()
    assert len(str(error)) < 200


def test_a_pop_in_maintenance_still_brings_the_owners_own_jobs(sandbox: Sandbox):
    with client_of(sandbox) as client:
        client.pop(OFFER)
        sandbox.set_maintenance(OFFER.name, on=True)
        with pytest.raises(HordeOnHold, match="WorkerMaintenance") as caught:
            client.pop(OFFER)
        assert caught.value.retry_after_seconds > 0
        with Api(sandbox.url, WORKER_KEY) as owner:
            owner.ask_id()
        assert isinstance(client.pop(OFFER), Job)


# ---- the documentation ------------------------------------------------------------------------


def line(rc: str, row: Row, *, is_about_a_job: bool) -> str:
    """A row as a person reads it."""
    does = row.answer.value
    if row.answer is Answer.HOLD:
        does += f", every {row.wait_seconds:g} s"
    if row.answer is Answer.GIVE_UP and is_about_a_job:
        does += f": {row.fate.value}"
    status = rc.removeprefix("HTTP") if rc.startswith("HTTP") else row.status or "none"
    return f"| `{rc}` | {status} | {does} | {row.remedy} |"


def section(title: str, rows: Rows) -> list[str]:
    is_about_a_job = title == "generate/submit"
    lines = [line(rc, row, is_about_a_job=is_about_a_job) for rc, row in rows.items()]
    return [f"## {title}", *lines]


def test_the_documentation_holds_the_tables_of_the_code():
    text = DOCUMENT.read_text("utf-8").splitlines()
    written = [line for line in text if line.startswith(("## ", "| `"))]
    expected = [each for title, rows in BY_ENDPOINT.items() for each in section(title, rows)]
    assert written == expected

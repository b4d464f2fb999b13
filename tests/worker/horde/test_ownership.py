"""Whose a worker's name is, as far as the horde says it, and what else its record holds."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.owner import Home, config
from tests.support.sandbox_client import (
    CLIENT_KEY,
    MODELS,
    NEWBIE_KEY,
    WORKER_KEY,
    Api,
    MovableClock,
)
from worker.cli.exit_codes import ExitCode
from worker.cli.worker_command import run_worker_command
from worker.config.config import load_config
from worker.errors import NotAllowed, UsageError
from worker.horde.accounts import Account, WorkerRecord
from worker.horde.client import HordeClient
from worker.line.popper import insist_on_own_name
from worker.sandbox import Sandbox
from worker.sandbox.records import DEFAULT_TEAMS
from worker.setup.account import worker_name
from worker.setup.finding import Verdict

NAMES = ["tester", "Tom & Jerry", "<3 pictures>", "50% off", "half/half", "ünï cödé", "a?b#c"]
((TEAM_ID, TEAM),) = DEFAULT_TEAMS.items()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def sandbox(clock: MovableClock) -> Iterator[Sandbox]:
    with Sandbox(MODELS, clock=clock, limits={}) as running:
        yield running


def client_of(sandbox: Sandbox, key: str = WORKER_KEY) -> HordeClient:
    return HordeClient(sandbox.url, key, client_agent="a test:1:url")


def pop(sandbox: Sandbox, name: str, key: str = WORKER_KEY) -> None:
    with Api(sandbox.url, key) as worker:
        assert worker.pop(name=name).status_code == 200


@pytest.mark.parametrize("name", NAMES)
def test_an_owners_own_new_name_is_nobody_elses(sandbox: Sandbox, name: str):
    """The server's list of an account's workers is up to 30 s old when the name has its record."""
    with client_of(sandbox) as client:
        client.whoami()  # from here on the list is kept without the worker
        pop(sandbox, name)
        account = client.whoami()
        record = client.worker_by_name(name, account)
        insist_on_own_name(account, record)
        finding = worker_name(client, name, account)
    assert finding.verdict in (Verdict.warning, Verdict.ok)
    assert "exists" in finding.detail or "/" in name


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_however_it_is_spelt(sandbox: Sandbox, clock: MovableClock, name: str):
    with client_of(sandbox) as client:
        assert "new" in worker_name(client, name, client.whoami()).detail or "/" in name
        pop(sandbox, name)
        clock.move(30)
        finding = worker_name(client, name, client.whoami())
    assert (finding.verdict, finding.detail) == (Verdict.ok, f"{name!r}, yours")


def test_a_name_whose_owner_is_not_told_is_left_to_the_pop(sandbox: Sandbox):
    pop(sandbox, "tester")
    with client_of(sandbox, NEWBIE_KEY) as newbie:
        finding = worker_name(newbie, "tester", newbie.whoami())
    assert finding.verdict is Verdict.warning
    assert "choose another dreamer_name" in finding.remedy


ACCOUNT = Account(username="owner#12", id=12, kudos=0.0)


def record(**changes: object) -> WorkerRecord:
    values = {"id": "x", "name": "w", "type": "image", "online": True, "maintenance_mode": False}
    return WorkerRecord.model_validate({**values, **changes})


@pytest.mark.parametrize("owner", ["owner#12", "renamed#12", "a#b#12", None])
def test_who_may_be_the_owner_is_let_through(owner: str | None):
    insist_on_own_name(ACCOUNT, record(owner=owner))


@pytest.mark.parametrize(
    ("changes", "rc"),
    [
        ({"owner": "owner#2"}, "WrongCredentials"),
        ({"owner": "other#112"}, "WrongCredentials"),
        ({"type": "interrogation"}, "PolymorphicNameConflict"),
        ({"type": "text", "owner": "owner#12"}, "PolymorphicNameConflict"),
    ],
)
def test_a_name_that_is_surely_not_to_be_had_is_refused_at_once(
    changes: dict[str, object], rc: str
):
    with pytest.raises(NotAllowed) as caught:
        insist_on_own_name(ACCOUNT, record(**changes))
    assert caught.value.rc == rc


def test_check_tells_of_maintenance(sandbox: Sandbox):
    pop(sandbox, "tester")
    sandbox.set_maintenance("tester", True)
    with client_of(sandbox) as client:
        finding = worker_name(client, "tester", client.whoami())
    assert finding.verdict is Verdict.warning
    assert "in maintenance" in finding.detail
    assert "worker --maintenance off" in finding.remedy


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def owner(tmp_path: Path, sandbox: Sandbox) -> Home:
    home = Home(tmp_path)
    home.write(config(sandbox))
    return home


def test_an_owner_sees_and_changes_the_hordes_record(
    owner: Home, sandbox: Sandbox, clock: MovableClock
):
    code, output = owner.run("worker")
    assert (code, "its first pop makes it" in output) == (ExitCode.FAILED, True)
    pop(sandbox, "tester")
    clock.move(30)
    changes = ("--maintenance", "on", "--message", "a new <fan>", "--info", "a <card>", "--team")
    code, output = owner.run("worker", *changes, TEAM.lower())
    assert code == ExitCode.OK, output
    assert output.splitlines()[:3] == [
        "maintenance is now: on",
        "info is now: a <card>",
        f"team is now: {TEAM}",
    ]
    with Api(sandbox.url, WORKER_KEY) as worker:
        assert worker.pop().json()["message"] == "a new &lt;fan&gt;"
    clock.move(30)
    code, output = owner.run("worker")
    assert code == ExitCode.OK
    shown = dict(line.split(":", 1) for line in output.splitlines())
    assert shown["maintenance"].strip().startswith("on; end it with")
    assert (shown["info"].strip(), shown["team"].strip()) == ("a <card>", TEAM)

    code, output = owner.run("worker", "--maintenance", "off", "--team", "none")
    assert (code, output) == (ExitCode.OK, "maintenance is now: off\nteam is now: None\n")
    pop(sandbox, "tester")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"message": "why"}, "add --maintenance on"),
        ({"info": "x" * 1001}, "--info: 1001 characters"),
        ({"maintenance": "on", "message": "x" * 301}, "--message: 301 characters"),
        ({"team": "nobody's"}, f"there are: {TEAM}"),
    ],
)
def test_what_can_not_be_done_is_named(owner: Home, options: dict[str, str], told: str):
    nothing = dict.fromkeys(("maintenance", "message", "info", "team"))
    with pytest.raises(UsageError, match=told):
        run_worker_command(
            load_config(owner.folder / "bridgeData.yaml"), Namespace(**(nothing | options))
        )


def test_nobody_changes_the_worker_of_another(owner: Home, sandbox: Sandbox):
    pop(sandbox, "tester", NEWBIE_KEY)
    code, output = owner.run("worker", "--maintenance", "on")
    assert code == ExitCode.NOT_ALLOWED
    assert "use the api_key that this worker's name belongs to" in output
    with Api(sandbox.url, CLIENT_KEY) as anybody:
        assert not anybody.call("GET", "workers/name/tester").json()["maintenance_mode"]

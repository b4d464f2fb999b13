from __future__ import annotations

import argparse
import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from hordelib.job.params import GenerationParams
from tests.support.owner import PROJECT
from tests.support.simulated_nvml import MIB, SimulatedCard, SimulatedNvml
from worker.cli.exit_codes import ExitCode
from worker.cli.running_worker import status
from worker.horde.api import Slot
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage
from worker.jobs.status import Obstacle, ObstacleKind
from worker.line.devices.device_state import DeviceState
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.service.orders import Orders
from worker.service.overview import JobOverview, KindOverview, Overview, overview_of, read_overview
from worker.service.state_folder import STATE, StateFolder

PROMPT = "a prompt that nobody shall read"


HOT = DeviceState("left", "0", "GPU-0", "paused", why="left has 90 °C")
BUSY = DeviceState("right", "1", "GPU-1", "working", model="Deliberate")


def slots(*ids: str) -> tuple[Slot, ...]:
    return tuple(
        Slot(id=id, index=index, batch=len(ids), upload_url="", over_at=1e9)
        for index, id in enumerate(ids)
    )


@pytest.fixture
def journal() -> Journal:
    """One job at work, of four steps in eight seconds, one that waits, and one that is over."""
    journal = Journal(Ledger(None))
    for first, model in (("a", "Deliberate"), ("b", "Flux"), ("c", "Deliberate")):
        journal.popped(slots(first, f"{first}2"), model, PROMPT)
    journal.understood("a", GenerationParams(prompt=PROMPT, width=512, height=768), 7.0)
    journal.expected("a", 8.0, 12.34)
    journal.move("a", JobStage.running)
    journal.stepped("a", 1, 4)
    for image in ("c", "c2"):
        journal.ended("c", image, ImageEnd(JobStage.submitted, kudos=1.5))
    journal.say(Obstacle("the horde is away: look at the network", ObstacleKind.trouble))
    return journal


def seen(journal: Journal) -> Overview:
    return overview_of(journal.view(), "serving", "why", began=1.0, models=["Deliberate", "Flux"])


def test_it_tells_what_is_in_hand_and_what_has_been_done(journal: Journal):
    overview = seen(journal)
    assert overview.running == JobOverview(
        id="a", model="Deliberate", stage="running", images=2, width=512, height=768, step=1,
        steps=4, seconds_left=6.0, kudos=12.3,
    )  # fmt: skip
    assert [(job.id, job.stage, job.seconds_left) for job in overview.jobs[1:]] == [
        ("b", "popped", None)
    ]
    assert (overview.images, overview.failed, overview.kudos) == (2, 0, 3.0)


def test_no_prompt_is_in_it(journal: Journal):
    assert PROMPT not in seen(journal).model_dump_json()


def test_it_is_the_same_after_it_was_written_and_read(journal: Journal):
    overview = seen(journal)
    assert read_overview(overview.model_dump_json()) == overview


@pytest.mark.parametrize("text", ["", "serving", "{", "[]", '{"doing": 3}', "\x00"])
def test_what_is_no_overview_is_none(text: str):
    assert read_overview(text) is None


# ---- status ------------------------------------------------------------------------------------


def asked(home: Path, *, as_json: bool = True) -> int:
    return status(argparse.Namespace(home=home, json=as_json, watch=False))


def test_each_field_of_the_json_is_documented(
    tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]
):
    with closing(StateFolder.open(tmp_path / STATE)) as state:
        with closing(Ledger(state.path / LEDGER)) as ledger:
            ledger.popped(slots("x", "y"), "Deliberate")
            ledger.popped(slots("t"), "a model", kind=Kind.text)
            ledger.ended("t", ImageEnd(JobStage.submitted, kudos=1.5))
            ledger.ended("x", ImageEnd(JobStage.submitted, kudos=2.5))
        pauses = (PauseReason(PauseCause.owner, "you paused it", PauseKind.finish),)
        forms = KindOverview(kind="form", name="an alchemist", why="on hold", done=3, kudos=4.5)
        changes = {"pauses": pauses, "devices": (HOT,)}
        now = seen(journal).beside([forms]).model_copy(update=changes)
        Orders(state.path).answer(now)
        assert asked(tmp_path) == ExitCode.HINDERED
    told = json.loads(capsys.readouterr().out)
    assert told["ledger"] == {
        "images": {"submitted": 1}, "others": {"text": {"submitted": 1}}, "kudos": 4.0,
        "in_hand": 1, "lost_pops": 0, "hour_images": 1, "hour_kudos": 2.5,
        "kinds": {
            "image": {"kudos": 2.5, "in_hand": 1, "hour_done": 1, "hour_kudos": 2.5},
            "text": {"kudos": 1.5, "in_hand": 0, "hour_done": 1, "hour_kudos": 1.5},
        },
    }  # fmt: skip
    docs = (PROJECT / "docs" / "service.md").read_text("utf-8")
    table = docs[docs.index("| `schema_version`") : docs.index("What is not known is null.")]
    fields = {*told, *told["jobs"][0], *told["ledger"], *told["pauses"][0]}
    fields |= {*told["devices"][0], *told["others"][0], *told["ledger"]["kinds"]["text"]}
    assert fields == set(re.findall(r"`(\w+)`", table))


@pytest.mark.parametrize(
    ("doing", "why", "code"),
    [
        ("serving", "", ExitCode.OK),
        ("serving", "the horde is away", ExitCode.HINDERED),
        ("in maintenance", "a new fan", ExitCode.HINDERED),
        ("pausing", "", ExitCode.PAUSED),
        ("paused", "", ExitCode.PAUSED),
        ("draining", "", ExitCode.OK),
    ],
)
def test_the_exit_code_tells_the_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], doing: str, why: str, code: ExitCode
):
    with closing(StateFolder.open(tmp_path / STATE)) as state:
        Orders(state.path).answer(Overview(doing=doing, why=why))
        assert asked(tmp_path) == code
    assert json.loads(capsys.readouterr().out)["doing"] == doing


def test_a_worker_that_does_not_run_is_told_with_what_it_has_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert asked(tmp_path, as_json=False) == ExitCode.FAILED
    assert capsys.readouterr().out.split() == ["worker:", "not", "running"]


def test_people_read_the_job_at_work_the_rest_and_the_last_hour(
    tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]
):
    with closing(StateFolder.open(tmp_path / STATE)) as state:
        with closing(Ledger(state.path / LEDGER)):
            pass
        Orders(state.path).answer(seen(journal).model_copy(update={"at": 11_000.0}))
        asked(tmp_path, as_json=False)
    lines = [re.sub(r"\s+", " ", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        "worker: serving, for 3 h 3 min",
        " why",
        "now: Deliberate 512x768, step 1 of 4, about 6 s left",
        "beside it: 1 popped",
        "the last hour: 0 images, 0.00 kudos",
    ]
    assert not [line for line in lines if line.startswith("lost answers")]


def test_each_card_is_told_with_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    SimulatedNvml([SimulatedCard("RTX 4090", "GPU-0", celsius=90)]).install(monkeypatch)
    with closing(StateFolder.open(tmp_path / STATE)) as state:
        Orders(state.path).answer(Overview(doing="serving", devices=(HOT, BUSY)))
        asked(tmp_path, as_json=False)
        assert [line.split(maxsplit=1)[-1] for line in capsys.readouterr().out.splitlines()] == [
            "serving",
            "left: paused: left has 90 °C; 5.9 of 8.0 GiB free, 90 °C",
            "working on Deliberate; its driver does not answer",
        ]
        asked(tmp_path)
    hot, busy = json.loads(capsys.readouterr().out)["devices"]
    assert (hot["why"], hot["celsius"], hot["free_bytes"]) == ("left has 90 °C", 90, 6000 * MIB)
    assert (busy["doing"], busy["model"], busy["celsius"]) == ("working", "Deliberate", None)

"""Several engines in one worker, each a real process, against the local horde over HTTP.

The engines are scripted. Which device makes what is in the journal.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import simulated_children
from hordelib.errors import DeviceUnusable
from hordelib.files.model import Model
from tests.support import scripted_engine
from tests.support.owner import wait_for
from tests.support.sandbox_client import CLIENT_KEY, MODEL, MODELS, WORKER_KEY, Api
from worker.children.child_side import Child, set_up_process
from worker.children.engine import EngineProcess
from worker.children.judge import JudgeProcess
from worker.children.messages import EngineSettings, JudgeSettings, Ready
from worker.config.keys import BridgeConfig
from worker.errors import EngineUnusable
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import JobStage
from worker.line.bridge import Bridge
from worker.line.devices.device import Device
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.models.opening import Models
from worker.safety.censorship import Censorship
from worker.safety.judging import Judging
from worker.sandbox import Sandbox, State
from worker.service.assembly import make_client, make_intake

SLOW = {
    "width": 64,
    "height": 64,
    "steps": 30,
}  # one and a half seconds, with the word in the prompt
Main = Callable[[Any, Any], None]


def broken(pipe: Connection, settings: EngineSettings) -> None:
    """An engine that starts, and whose card fails at its first job."""
    set_up_process(settings.log_file)
    child = Child(pipe)
    child.report(Ready("a broken card"))
    for _ in child.commands():
        child.give_up(DeviceUnusable("the card has fallen off the bus"))


@pytest.fixture(autouse=True)
def models_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no device leaves a job to another one for that."""
    monkeypatch.setattr("worker.line.devices.device.READ_SECONDS", 0.0)


@dataclass
class Several:
    sandbox: Sandbox
    client: Api
    bridge: Bridge
    journal: Journal
    engines: list[EngineProcess]

    def ask(self, count: int, prompt: str = "slow") -> list[str]:
        """Different ones, so that they share no batch."""
        return [
            self.client.ask_id({**SLOW, "steps": 30 + number}, prompt=prompt)
            for number in range(count)
        ]

    def running(self) -> dict[str, str]:
        """The jobs at work, by their devices."""
        rows = [row for row in self.journal.jobs() if row.stage is JobStage.running]
        return {row.device: row.job_id for row in rows}

    def wait_for_all(self, asked: list[str]) -> None:
        wait_for(lambda: all(self.sandbox.books().request(id).done for id in asked))

    def states(self, asked: list[str]) -> set[State]:
        books = self.sandbox.books()
        return {image.state for id in asked for image in books.of_request(id)}


@contextmanager
def served(folder: Path, checkpoint: Path, *mains: Main) -> Generator[Several]:
    """A bridge with an engine for each of `mains`: "card 0", and so on."""
    with Sandbox(MODELS, limits={}) as sandbox, Api(sandbox.url, CLIENT_KEY) as client:
        values = {"api_key": WORKER_KEY, "dreamer_name": "tester", "models_to_load": [MODEL]}
        config = BridgeConfig.model_validate({**values, "horde_url": sandbox.url})
        engines = [
            EngineProcess(EngineSettings(None, "auto", 0, None, folder / f"{n}.log"), main=main)
            for n, main in enumerate(mains)
        ]
        judge = JudgeProcess(
            JudgeSettings(folder, False, folder / "judge.log"), main=simulated_children.judge
        )
        journal = Journal(Ledger(None))
        models = Models({MODEL: Model.of_checkpoint(checkpoint, MODEL)}, ())
        bridge = Bridge(
            make_client(config),
            [Device(engine, f"card {number}") for number, engine in enumerate(engines)],
            make_intake(config, folder, models),
            Judging(judge, lambda: Censorship(nsfw=True, censor_nsfw=False, censorlist=())),
            journal,
        )
        bridge.start()
        try:
            wait_for(lambda: all(engine.is_alive for engine in engines))
            yield Several(sandbox, client, bridge, journal, engines)
        finally:
            bridge.abandon()
            assert bridge.join(60), bridge.busy


def test_each_device_makes_a_job_of_its_own_at_the_same_time(tmp_path: Path, checkpoint: Path):
    with served(tmp_path, checkpoint, *3 * [scripted_engine.main]) as worker:
        worker.ask(3, prompt="stuck")
        wait_for(lambda: set(worker.running()) == {"card 0", "card 1", "card 2"})
        (page,) = worker.client.call("GET", "workers").json()
        assert page["threads"] == 3, "the horde is told how many jobs it makes at once"


def test_a_card_that_fails_goes_out_alone_and_another_one_makes_its_job(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
):
    with served(tmp_path, checkpoint, broken, scripted_engine.main) as worker:
        asked: list[str] = []
        while "card 0: the card has fallen off the bus; the others go on" not in caplog.text:
            asked += worker.ask(4)  # any of which it may get
            worker.wait_for_all(asked)
        assert worker.states(asked) == {State.ok}, "no job was lost to it"
        told = [(it.doing, it.why) for it in worker.bridge.devices]
        assert told[0] == ("out", "the card has fallen off the bus")
        assert worker.bridge.failure is None
        more = worker.ask(2, prompt="quick")
        worker.wait_for_all(more)
        assert worker.states(more) == {State.ok}


def test_a_card_that_is_whole_again_is_taken_back(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
):
    monkeypatch.setattr("worker.line.devices.feeder.OUT_SECONDS", (0.5, 0.5))
    with (
        caplog.at_level(logging.INFO),
        served(tmp_path, checkpoint, broken, scripted_engine.main) as worker,
    ):
        asked = worker.ask(4)
        wait_for(lambda: "card 0 can be used again" in caplog.text)
        worker.wait_for_all(asked)
        assert worker.states(asked) == {State.ok}


def test_where_the_last_card_fails_the_worker_ends_with_its_reason(
    tmp_path: Path, checkpoint: Path
):
    with served(tmp_path, checkpoint, broken, broken) as worker:
        worker.ask(2, prompt="quick")
        assert worker.bridge.join(120)
        assert isinstance(worker.bridge.failure, EngineUnusable)
        assert "fallen off the bus" in str(worker.bridge.failure)


def test_a_card_that_something_else_needs_is_left_alone_and_its_job_goes_on_elsewhere(
    tmp_path: Path, checkpoint: Path
):
    with served(tmp_path, checkpoint, *2 * [scripted_engine.main]) as worker:
        asked = worker.ask(1)
        wait_for(lambda: len(worker.running()) == 1)
        ((card, job),) = worker.running().items()
        engine = worker.engines[int(card[-1])]
        taken = PauseReason(PauseCause.others_on_card, "a game", PauseKind.at_once, device=card)
        worker.bridge.pause([taken])
        other = {"card 0": "card 1", "card 1": "card 0"}[card]
        wait_for(lambda: worker.running() == {other: job})
        assert not engine.is_alive
        assert not worker.bridge.is_paused, "the worker serves on"
        told = {it.name: (it.doing, it.model, it.why) for it in worker.bridge.devices}
        assert told == {card: ("paused", "", "a game"), other: ("working", MODEL, "")}
        more = worker.ask(2)
        worker.wait_for_all([*asked, *more])
        assert worker.states([*asked, *more]) == {State.ok}
        assert not engine.is_alive
        worker.bridge.resume()
        worker.wait_for_all(more := worker.ask(2))
        assert engine.is_alive, "it is used again"


def test_a_reason_for_each_of_the_cards_pauses_the_worker(tmp_path: Path, checkpoint: Path):
    with served(tmp_path, checkpoint, *2 * [scripted_engine.main]) as worker:
        wait_for(lambda: worker.bridge.is_ready)
        hot = [
            PauseReason(PauseCause.max_card_temperature, "hot", PauseKind.finish, device=name)
            for name in ("card 0", "card 1")
        ]
        worker.bridge.pause(hot)
        assert worker.bridge.is_paused
        wait_for(lambda: worker.bridge.has_paused)
        worker.bridge.pause(hot[:1])
        assert not worker.bridge.is_paused, "one of them is cool again"


def test_engines_that_are_killed_at_random_cost_no_job(tmp_path: Path, checkpoint: Path):
    with served(tmp_path, checkpoint, *3 * [scripted_engine.main]) as worker:
        asked = worker.ask(8)
        for card in (0, 2):
            wait_for(lambda card=card: f"card {card}" in worker.running())
            os.kill(worker.engines[card].pid or 0, signal.SIGKILL)
        worker.wait_for_all(asked)
        assert worker.states(asked) == {State.ok}

"""A pause with forms in hand: none starts the engine or keeps it, and all are done later."""

from __future__ import annotations

import base64
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.measure import simulated_children
from hordelib.job.control_types import ControlType
from tests.support.owner import wait_for
from tests.support.sandbox_client import CLIENT_KEY, MODELS, WORKER_KEY, Api, Json, picture
from worker.alchemist.offer import OfferedForms, form_offer
from worker.children.messages import EngineSettings
from worker.config.keys import BridgeConfig
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.line.bridge import Bridge
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.models.opening import Models
from worker.sandbox import FormEntry, Sandbox, State
from worker.service.assembly import Children, make_bridge, make_client

LONG_SECONDS = 150.0
PAUSE = PauseReason(PauseCause.owner, "you paused it", PauseKind.finish)
ANNOTATION: Json = {"name": "annotation", "payload": {"control_type": "canny"}}
HANGING_LIFE = 2


def engine(lives: Path, pipe: Connection, settings: EngineSettings) -> None:
    """One that is quick, but for its second life, whose job never ends."""
    life = next(number for number in count(1) if not (lives / str(number)).exists())
    (lives / str(life)).touch()
    simulated_children.engine(3600.0 if life == HANGING_LIFE else 0.0, pipe, settings)


@contextmanager
def serving(bridge: Bridge) -> Generator[None]:
    bridge.start()
    try:
        yield
    finally:
        bridge.stop()
        if not bridge.join(LONG_SECONDS):
            bridge.abandon()
        assert bridge.join(LONG_SECONDS), bridge.busy
        assert bridge.failure is None


def test_forms_neither_start_the_engine_in_a_pause_nor_keep_it(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    lives.mkdir()
    with (
        Sandbox(MODELS) as sandbox,
        Api(sandbox.url, CLIENT_KEY) as client,
        closing(Ledger(tmp_path / FILE)) as ledger,
    ):
        config = BridgeConfig.model_validate(
            {
                "api_key": WORKER_KEY,
                "dreamer_name": "a dreamer",
                "alchemist_name": "an alchemist",
                "alchemist_only": True,
                "forms": ["annotation"],
                "annotation_types": ["canny"],
                "horde_url": sandbox.url,
            }
        )

        def ask() -> None:
            body: Json = {
                "source_image": base64.b64encode(picture()).decode(),
                "forms": [ANNOTATION],
            }
            assert client.call("POST", "interrogate/async", body).status_code == 202

        def last() -> FormEntry:
            return sandbox.books().forms[-1]

        ask()
        earlier = make_client(config)
        (form,) = earlier.pop_forms(
            form_offer(config, OfferedForms(("annotation",), (ControlType.canny,), {}), 1)
        ).tasks
        earlier.close()
        journal = Journal(ledger)
        journal.of(Kind.form).popped(form.slots, form.form, form.asked)
        children = Children(partial(engine, lives), simulated_children.judge)
        bridge = make_bridge(config, tmp_path, Models({}, ()), journal, children=children)
        bridge.pause([PAUSE])
        with serving(bridge):
            wait_for(lambda: last().holds[0].state is State.faulted)
            wait_for(lambda: bridge.has_paused)
            assert list(lives.iterdir()) == []
            bridge.resume()
            wait_for(lambda: last().state == "done")
            bridge.pause([replace(PAUSE, kind=PauseKind.at_once)])
            wait_for(lambda: bridge.has_paused)
            ask()
            bridge.resume()
            wait_for(lambda: (lives / str(HANGING_LIFE)).exists())
            bridge.pause([replace(PAUSE, kind=PauseKind.at_once)])
            wait_for(lambda: last().holds[0].state is State.faulted)
            wait_for(lambda: bridge.has_paused)
            bridge.resume()
            wait_for(lambda: last().state == "done")
            assert len(list(lives.iterdir())) == HANGING_LIFE + 1
        assert [form.aborts for form in sandbox.books().forms] == [1, 1]

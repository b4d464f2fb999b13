"""Forms of the device while pictures keep coming, so that it has no gap."""

from __future__ import annotations

import base64
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.measure import simulated_children
from hordelib.demo_model import ensure_checkpoint
from hordelib.files.model import Model
from tests.support.owner import wait_for
from tests.support.sandbox_client import CLIENT_KEY, MODEL, MODELS, WORKER_KEY, Api, picture
from tests.worker.alchemist.test_pauses_with_forms import ANNOTATION, serving
from worker.children.engine import EngineProcess
from worker.config.keys import BridgeConfig
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.line.bridge import Bridge
from worker.line.devices.device import Device
from worker.line.limits import Limits
from worker.models.opening import Models
from worker.sandbox import Sandbox, State
from worker.service.assembly import (
    Children,
    engine_settings,
    make_alchemist,
    make_client,
    make_intake,
    make_judging,
)

PICTURES = 400  # more than are made until the forms are done
JOB_SECONDS = 0.2
FORMS = 3


def test_forms_have_their_turns_while_pictures_keep_coming(tmp_path: Path) -> None:
    with (
        Sandbox(MODELS, limits={}) as sandbox,
        Api(sandbox.url, CLIENT_KEY) as client,
        closing(Ledger(tmp_path / FILE)) as ledger,
    ):
        config = BridgeConfig.model_validate(
            {
                "api_key": WORKER_KEY,
                "dreamer_name": "a dreamer",
                "alchemist_name": "an alchemist",
                "models_to_load": [MODEL],
                "forms": ["annotation"],
                "annotation_types": ["canny"],
                "horde_url": sandbox.url,
            }
        )
        engine = partial(simulated_children.engine, JOB_SECONDS)
        judging = make_judging(config, tmp_path, Children(engine, simulated_children.judge))
        model = Model.of_checkpoint(ensure_checkpoint(tmp_path), MODEL)
        horde, journal = make_client(config), Journal(ledger)
        bridge = Bridge(
            horde,
            [Device(EngineProcess(engine_settings(config, tmp_path, None), main=engine))],
            make_intake(config, tmp_path, Models({MODEL: model}, ())),
            judging,
            journal,
            Limits(gap_seconds=1.0),
        )
        for number in range(PICTURES):
            client.ask({"width": 64, "height": 64, "steps": 10 + number % 2}, models=[MODEL])

        def made() -> int:
            return len(sandbox.books().in_state(State.ok))

        with serving(bridge):
            wait_for(lambda: made() > 2)
            bridge.accompany(make_alchemist(config, tmp_path, horde, judging, journal))
            bridge.companions[0].start(bridge)
            source = base64.b64encode(picture()).decode()
            for _ in range(FORMS):
                client.call(
                    "POST", "interrogate/async", {"source_image": source, "forms": [ANNOTATION]}
                )
            wait_for(lambda: all(form.state == "done" for form in sandbox.books().forms))
            assert made() < PICTURES - 2, "pictures still waited"
            bridge.stop(0)
        assert [len(form.holds) for form in sandbox.books().forms] == [1] * FORMS

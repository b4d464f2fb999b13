"""What a form makes is judged as any other picture: what may not leave is replaced by a card."""

from __future__ import annotations

import base64
import io
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from benchmarks.measure import simulated_children
from benchmarks.measure.simulated_children import serve_verdicts
from hordelib.job.images import Picture
from hordelib.safety.verdict import Verdict
from tests.support.owner import wait_for
from tests.support.sandbox_client import CLIENT_KEY, MODELS, WORKER_KEY, Api, picture
from tests.worker.alchemist.test_pauses_with_forms import ANNOTATION, serving
from worker.children.child_side import set_up_process
from worker.children.messages import Judged, JudgeSettings
from worker.config.keys import BridgeConfig
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.models.opening import Models
from worker.safety.censorship import Cause, censor_card
from worker.sandbox import Sandbox
from worker.service.assembly import Children, make_bridge


def finds_all_nsfw(pipe: Connection, settings: JudgeSettings) -> None:
    set_up_process(settings.log_file)
    serve_verdicts(pipe, lambda asked: Judged(asked.job_id, asked.index, Verdict(nsfw=True)))


def test_a_picture_that_may_not_leave_is_replaced_by_a_card(tmp_path: Path) -> None:
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
                "nsfw": False,
            }
        )
        children = Children(partial(simulated_children.engine, 0.0), finds_all_nsfw)
        bridge = make_bridge(config, tmp_path, Models({}, ()), Journal(ledger), children=children)
        source = base64.b64encode(picture()).decode()
        body = {"source_image": source, "forms": [ANNOTATION]}
        assert client.call("POST", "interrogate/async", body).status_code == 202
        with serving(bridge):
            wait_for(lambda: sandbox.books().forms[-1].state == "done")
        (form,) = sandbox.books().forms
        stored = sandbox.horde.store.get("transient", f"{form.id}.webp")
        assert stored is not None
        card = censor_card(Picture(64, 64, bytes(64 * 64 * 3), 0), Cause.NSFW)
        with (
            Image.open(io.BytesIO(stored.data)) as sent,
            Image.open(io.BytesIO(card.to_webp())) as expected,
        ):
            assert sent.convert("RGB").tobytes() == expected.convert("RGB").tobytes()

"""Forms and pictures by one program against the local horde: engine, judge and side child."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import requests
from PIL import Image

from hordelib.demo_model import ensure_checkpoint
from tests.support.owner import wait_for
from tests.support.sandbox_client import CLIENT_KEY, Api, Json
from worker.demo.run import REFERENCE, demo_config
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.models.opening import find_models
from worker.sandbox import Sandbox, State
from worker.service.assembly import make_bridge

LONG_SECONDS = 150.0


def source() -> str:
    image = Image.new("RGB", (128, 96), "black")
    image.paste("red", (32, 24, 96, 72))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_forms_fill_the_gaps_between_pictures_and_all_end_once(tmp_path: Path) -> None:
    ensure_checkpoint(tmp_path / "models")
    with Sandbox(models=REFERENCE) as sandbox, Api(sandbox.url, CLIENT_KEY) as client:
        config = demo_config(sandbox.url).model_copy(update={"alchemist_name": "an alchemist"})
        forms: list[Json] = [{"name": name} for name in ("palette", "nsfw")]
        forms.append({"name": "annotation", "payload": {"control_type": "canny"}})
        body: Json = {"source_image": source(), "forms": forms}
        ids = [client.call("POST", "interrogate/async", body).json()["id"] for _ in range(2)]
        for _ in range(3):
            client.ask({"width": 64, "height": 64, "steps": 4}, models=["Dreamer Demo"])
        ledger = Ledger(tmp_path / FILE)
        bridge = make_bridge(config, tmp_path, find_models(config, tmp_path), Journal(ledger))
        bridge.start()
        try:
            wait_for(
                lambda: (
                    all(form.state == "done" for form in sandbox.books().forms)
                    and len(sandbox.books().in_state(State.ok)) == 3
                )
            )
            status = client.call("GET", f"interrogate/status/{ids[0]}").json()
            drawn = {form["form"]: form["result"] for form in status["forms"]}["annotation"]
            with Image.open(
                io.BytesIO(requests.get(drawn["annotation"], timeout=60).content)
            ) as it:
                assert it.size == (128, 96)
                assert 255 in it.convert("L").tobytes(), "the edges of the square"
        finally:
            bridge.stop()
            if not bridge.join(60):
                bridge.abandon()
            assert bridge.join(30)
            assert bridge.failure is None
        books = sandbox.books()
        assert all(len(form.holds) == 1 for form in books.forms)
        assert [sum(form.holds[0].reward for form in books.forms)] == [2 * (1 + 1 + 5)]
        assert ledger.owed() == ledger.owed(Kind.form) == []
        ledger.close()

"""Forms that the clients ask for beside pictures, and what a worker of stand-ins has to answer."""

from __future__ import annotations

import base64
import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from benchmarks.measure.simulated_children import answers_of
from hordelib.alchemy.device_forms import NO_MODEL, device_params
from hordelib.alchemy.plain_forms import PLAIN_FORMS
from hordelib.job.image_files import decode
from hordelib.job.images import SourceImage
from hordelib.job.questions import FILES, Topic, file_of
from tests.chaos.stand_in import Wanted, draw
from worker.sandbox import FormEntry, Sandbox

ALCHEMIST = "tester's alchemist"
UPSCALER = "RealESRGAN_x4plus"
CONTROL = "canny"
FORMS = (*PLAIN_FORMS, "nsfw", "annotation", UPSCALER, Topic.caption.value)
KEYS = f"""
alchemist_name: "{ALCHEMIST}"
forms: [{", ".join(FORMS)}]
annotation_types: [{CONTROL}]
"""
"""For bridgeData.yaml."""


@dataclass(frozen=True, slots=True)
class FormOrder:
    """One request for forms over a picture of its own."""

    path: ClassVar[str] = "interrogate"
    picture: bytes
    names: Sequence[str]

    @property
    def images(self) -> int:
        return len(self.names)

    def body(self) -> dict[str, object]:
        return {
            "source_image": base64.b64encode(self.picture).decode(),
            "forms": [_asked(name) for name in self.names],
        }


def put_files(models: Path) -> None:
    """What the forms of the device need to be offered: a stand-in reads none of it."""
    captioner = [file_of(models, weights) for weights in FILES[Topic.caption]]
    for file in (models / "esrgan" / f"{UPSCALER}.pth", *captioner):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def order(draw: random.Random) -> FormOrder:
    """One to three forms over sixteen fields of colours that no other picture has."""
    colours = Image.frombytes("RGB", (4, 4), draw.randbytes(48))
    file = io.BytesIO()
    colours.resize((64, 128), Image.Resampling.NEAREST).save(file, "PNG")
    return FormOrder(file.getvalue(), draw.sample(FORMS, draw.randint(1, 3)))


def complaint(form: FormEntry, sandbox: Sandbox, models: Path) -> str:
    """What is wrong with the result of a form that is done; "" for nothing."""
    result: Any = (form.result or {}).get(form.form)
    stored = sandbox.horde.store.get("sources", f"{form.request_id}.webp")
    assert stored is not None
    image = decode(stored.data).image
    if plain := PLAIN_FORMS.get(form.form):
        return "" if result == plain(image) else f"{form.form}: the result of another picture"
    if form.form == "nsfw":
        return "" if result is False else f"nsfw: {result}"
    if form.form == Topic.caption:
        expected = answers_of(device_params(form.form, image, models))
        return "" if (result,) == expected else "caption: of another picture"
    if result != "R2" or form.uploads[-1:] != (_expected_sha256(form.form, image, models),):
        return f"{form.form}: another picture than the one that was asked for"
    return ""


def _asked(name: str) -> dict[str, object]:
    payload = {"payload": {"control_type": CONTROL}} if name == "annotation" else {}
    return {"name": name, **payload}


def _expected_sha256(form: str, image: SourceImage, models: Path) -> str:
    params = device_params(form, image, models, CONTROL)
    webp = draw(Wanted.of_job(params, NO_MODEL.name, 0)).to_webp()
    return hashlib.sha256(webp).hexdigest()

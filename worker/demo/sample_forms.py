"""What the demo's client asks an alchemist for: forms that need nobody else's weights."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from hordelib.demo_model.shapes import Scene, draw
from worker.demo.model_files import UPSCALER
from worker.demo.page import Shot
from worker.demo.sample_requests import in_base64

SIDE = 128
PICTURE = "an orange ring on a cyan background"


@dataclass(frozen=True, slots=True)
class FormWish:
    """One form over the demo's picture. `label` says what it is there to show."""

    form: str
    label: str
    payload: Mapping[str, object] = field(default_factory=dict[str, object])
    side: int = SIDE  # of the picture, in pixels

    def body(self) -> dict[str, object]:
        """The body of POST interrogate/async."""
        asked: dict[str, object] = {"name": self.form}
        if self.payload:
            asked["payload"] = dict(self.payload)
        return {"source_image": in_base64(_picture(self.side)), "forms": [asked]}

    def shot(self, value: Any, drawn: bytes | None) -> Shot:
        """The result on the page: `drawn` where it is a picture, else beside its own picture."""
        if drawn is not None:
            return Shot(self.label, PICTURE, self.form, None, drawn)
        if self.form == "vectorize":
            return Shot(self.label, PICTURE, self.form, None, value.encode(), "svg")
        told = value if isinstance(value, str) else json.dumps(value)
        picture = _webp(_picture(self.side))
        return Shot(self.label, PICTURE, f"{self.form}: {told}", None, picture)


FORM_WISHES = (
    FormWish("palette", "alchemy: the colours of a picture, with their shares"),
    FormWish("describe", "alchemy: technical facts of a picture"),
    FormWish("nsfw", "alchemy: whether a picture is not safe for work"),
    FormWish("vectorize", "alchemy: a picture as SVG"),
    FormWish("annotation", "alchemy: a control map", {"control_type": "canny"}),
    FormWish(UPSCALER, "alchemy: an upscaler"),
)


def _picture(side: int) -> Image.Image:
    return draw(Scene("ring", "orange", "cyan"), side)


def _webp(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=True)
    return file.getvalue()

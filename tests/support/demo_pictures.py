"""What the pictures of `demo --all` show: measured shapes, colours and sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from pathlib import Path

from PIL import Image

from hordelib.demo_model.shapes import Scene, draw
from tests.support.looks import Pixels, look, pixels
from tests.support.text_servers import told
from worker.demo.sample_forms import FORM_WISHES
from worker.demo.sample_requests import ALL
from worker.demo.sample_texts import TEXT_WISH


def assert_shows_what_it_promised(page: Path) -> None:
    """`page` is the index.html that the demo wrote, beside its pictures."""
    html = page.read_text("utf-8")
    files = re.findall(r'<img src="([^"]+)"', html)
    images = sum(wish.images for wish in ALL)
    assert len(files) == len(set(files)) == images + len(FORM_WISHES)
    assert all(escape(wish.label) in html for wish in FORM_WISHES)
    assert "#f58c19" in html, "the orange of the palette's picture"
    assert all(escape(wish.label) in html and escape(wish.prompt) in html for wish in ALL)
    assert escape(told(TEXT_WISH.prompt)) in html, "the text server's text"
    assert "seed 73" in html
    for name, scene in DEMO_SCENES.items():
        seen = look(shown(page, name), scene)
        assert (seen.colour, seen.background) == (scene.colour, scene.background), name
    for name, shows in DEMO_LOOKS.items():
        assert shows(pixels(shown(page, name))), name


def shown(page: Path, name: str) -> Image.Image:
    (file,) = page.parent.glob(name)
    with Image.open(file) as picture:
        picture.load()
        return picture


DEMO_SCENES = {
    "*-a-red-circle-*.webp": Scene("circle", "red", "blue"),
    "*-large-yellow-star-on-a-purple-*.webp": Scene("star", "yellow", "purple", size="large"),
    "*-green-heart-*.webp": Scene("heart", "green", "white"),
    "*-triangle-*.webp": Scene("triangle", "orange", "cyan"),
    "*-diamond-*.webp": Scene("diamond", "pink", "black", place="at the top"),
    "*-cross-*.webp": Scene("cross", "white", "green"),
    "*-ring-*-72.webp": Scene("ring", "blue", "yellow"),
    "*-clip-skip-2-*.webp": Scene("circle", "red", "blue"),
    "*-sampler-lcm-*.webp": Scene("circle", "red", "blue"),
    "*-sampler-seeds-2-*.webp": Scene("circle", "red", "blue"),
    "*-sampler-euler-cfg-pp-*.webp": Scene("circle", "red", "blue"),
    "*-300-tokens-*.webp": Scene("circle", "red", "blue"),
    "*-image-to-image-*.webp": Scene("star", "yellow", "purple", size="large"),
    "*-pix2pix-*.webp": Scene("circle", "red", "blue"),
    "*-controlnet-canny-*.webp": Scene("square", "yellow", "purple", place="on the left"),
    "*-controlnet-scribble-*.webp": Scene("square", "yellow", "purple", place="on the left"),
    "*-controlnet-the-image-*.webp": Scene("square", "yellow", "purple", place="on the left"),
    "*-lora-*.webp": Scene("square", "blue", "red"),
    "*-post-processing-*.webp": Scene("heart", "green", "white"),
}
_STAR = pixels(draw(Scene("star", "yellow", "purple", size="large"), 64))
DEMO_LOOKS: dict[str, Callable[[Pixels], bool]] = {
    "*-tiling-*.webp": lambda seen: abs(seen[:, 0] - seen[:, -1]).mean() < 20,
    "*-hires-fix-*.webp": lambda seen: seen.shape == (576, 576, 3),
    "*-inpainting-the-right-*.webp": lambda seen: abs(seen - _STAR)[:, :28].mean() < 6,
    "*-inpainting-model-*.webp": lambda seen: abs(seen - _STAR)[:, :28].mean() < 6,
    "*-outpainting-*.webp": lambda seen: abs(seen[:, 36:92] - _STAR[:, 4:60]).mean() < 6,
    "*-control-map-itself-*.webp": lambda seen: 0 < (seen > 128).mean() < 0.1,
    "*-post-processing-*.webp": lambda seen: seen.shape == (256, 256, 3),
    "*-qr-code-*.webp": lambda seen: seen.shape == (192, 192, 3) and seen.std() > 40,
    "*-censored-*.webp": lambda seen: seen.std() < 60,
}

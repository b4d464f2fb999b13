"""Forms by the engine itself, with real ComfyUI: pictures of the right size and content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hordelib import Engine
from hordelib.demo_model.variants import write_upscaler
from hordelib.errors import InvalidParams, ModelMissing
from hordelib.job.images import Picture, SourceImage


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(device="cpu") as engine:
        yield engine


def square() -> SourceImage:
    image = Image.new("RGB", (200, 136), "black")
    image.paste("white", (60, 40, 140, 96))
    return SourceImage.of_pil(image)


def test_annotation_draws_the_edges_in_the_pictures_own_size(
    engine: Engine, tmp_path: Path
) -> None:
    drawn = engine.alchemy("annotation", square(), tmp_path, "canny")
    assert isinstance(drawn, Picture)
    assert (drawn.width, drawn.height) == (200, 136)
    pixels = np.asarray(drawn.to_pil().convert("L"))
    assert pixels[38:43, 90:110].max() > 128, "the upper edge"
    assert pixels[60:76, 90:110].max() < 64, "nothing inside"


def test_an_upscaler_enlarges_the_source_itself(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "esrgan").mkdir()
    write_upscaler(tmp_path / "esrgan" / "RealESRGAN_x4plus.pth")
    larger = engine.alchemy("RealESRGAN_x4plus", square(), tmp_path)
    assert isinstance(larger, Picture)
    assert larger.width / larger.height == 200 / 136
    assert larger.width > 200
    shrunk = np.asarray(larger.to_pil().convert("L").resize((200, 136)), dtype=float)
    original = np.asarray(square().to_pil().convert("L"), dtype=float)
    assert np.corrcoef(shrunk.ravel(), original.ravel())[0, 1] > 0.9


def test_what_can_not_be_done_names_the_form_or_its_file(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="GFPGANv1"):
        engine.alchemy("GFPGAN", square(), tmp_path)
    with pytest.raises(InvalidParams, match="no such form"):
        engine.alchemy("no such form", square(), tmp_path)
    with pytest.raises(InvalidParams, match="control_type"):
        engine.alchemy("annotation", square(), tmp_path, "no such type")

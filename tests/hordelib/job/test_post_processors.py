"""Which post-processors there are, which can be served, and where they go in a job's graph."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from hordelib.errors import ModelMissing
from hordelib.graphs.build import build_graph
from hordelib.job.images import SourceImage
from hordelib.job.params import Inpaint, PostProcessor, ProcessorKind
from hordelib.job.post_processors import POST_PROCESSORS, missing, resolve, served
from tests.hordelib.graphs.test_graph import MODEL
from tests.hordelib.test_engine import SMALL
from tests.support.drawn_faces import draw_face
from tests.support.tiny_networks import write_brightness, write_compact

# `post_processing` of the horde's API (ModelGenerationInputStable in its swagger)
HORDE_NAMES = """GFPGAN RealESRGAN_x4plus RealESRGAN_x2plus RealESRGAN_x4plus_anime_6B NMKD_Siax
4x_AnimeSharp CodeFormers strip_background 4xNomos8kSC 4xLSDIRplus 4xNomosWebPhoto_RealPLKSR
4xNomos2_realplksr_dysample 4xNomos2_hq_dat2 2xModernSpanimationV1 GFPGANv1.3 RestoreFormer"""

UPSCALER, FACE_FIXER, BACKGROUND_REMOVAL = (
    ProcessorKind.upscaler,
    ProcessorKind.face_fixer,
    ProcessorKind.background,
)


def test_every_name_of_the_horde_has_a_row():
    assert set(POST_PROCESSORS) == set(HORDE_NAMES.split())


def test_what_is_missing_is_named_with_its_file_and_what_is_there_is_served(tmp_path: Path):
    write_compact(tmp_path / "esrgan" / "NMKD_Siax.pth")
    write_compact(tmp_path / "esrgan" / "4x-somebody_s.safetensors")
    write_brightness(tmp_path / "rembg" / "u2net.onnx")
    assert served(tmp_path) == {"NMKD_Siax", "4x-somebody_s", "strip_background"}
    assert missing(tmp_path)["GFPGAN"] == "gfpgan/GFPGANv1.4.pth"
    assert missing(tmp_path).keys() == set(POST_PROCESSORS) - served(tmp_path)
    assert missing(tmp_path / "nothing").keys() == set(POST_PROCESSORS)


def test_faces_come_before_upscaling_and_the_background_last(tmp_path: Path):
    write_compact(tmp_path / "esrgan" / "RealESRGAN_x2plus.pth")
    write_compact(tmp_path / "gfpgan" / "GFPGANv1.4.pth")
    write_compact(tmp_path / "codeformer" / "codeformer.pth")
    write_brightness(tmp_path / "rembg" / "u2net.onnx")
    asked = ("strip_background", "RealESRGAN_x2plus", "CodeFormers", "GFPGAN", "CodeFormers")
    done = [processor.name for processor in resolve(tmp_path, asked)]
    assert done == ["CodeFormers", "GFPGAN", "RealESRGAN_x2plus", "strip_background"]


@pytest.mark.parametrize("name", ["RealESRGAN_x4plus", "../gfpgan/GFPGANv1.4", "", "no such"])
def test_what_is_not_there_is_refused_and_names_are_no_paths(tmp_path: Path, name: str):
    write_compact(tmp_path / "esrgan" / "other.pth")
    write_compact(tmp_path / "gfpgan" / "GFPGANv1.4.pth")
    with pytest.raises(ModelMissing, match="post-processor"):
        resolve(tmp_path, [name])


@pytest.mark.usefixtures("engine")
def test_post_processing_is_the_last_thing_done_to_a_picture(tmp_path: Path):
    """After an inpainting job's own composite, and valid to ComfyUI."""
    import execution

    image, mask = SourceImage.of_pil(draw_face(64)), SourceImage.of_pil(draw_face(64), "L")
    chain = [
        PostProcessor("GFPGAN", FACE_FIXER, tmp_path / "a.pth"),
        PostProcessor("NMKD_Siax", UPSCALER, tmp_path / "b.pth"),
        PostProcessor("strip_background", BACKGROUND_REMOVAL, tmp_path / "u2net.onnx"),
    ]
    params = replace(SMALL, source=Inpaint(image, mask), post_processing=tuple(chain))
    graph = build_graph(params, MODEL).to_api()
    assert graph["output"]["inputs"]["images"] == ["background_2", 0]
    assert graph["background_2"]["inputs"]["image"] == ["upscaler_1", 0]
    assert graph["upscaler_1"]["inputs"]["image"] == ["face_fixer_0", 0]
    before = graph["face_fixer_0"]["inputs"]["image"]
    assert graph[before[0]]["class_type"] == "ImageCompositeMasked"
    valid, error, _, node_errors = asyncio.run(execution.validate_prompt("job", graph, None))
    assert valid, (error, node_errors)

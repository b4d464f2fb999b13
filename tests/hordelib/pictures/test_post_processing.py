"""Upscalers, face fixers and background removal, on pictures whose outcome one can say."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hordelib import Engine
from hordelib.comfyui.device import Device
from hordelib.comfyui.executor import Executor
from hordelib.comfyui.loaders import load
from hordelib.comfyui.loaders.image_networks import (
    Upscaler,
    computes_in_bfloat16,
    load_image_model,
    on_patcher,
)
from hordelib.comfyui.nodes.context import RunContext, Wanted
from hordelib.engine import OnStep, unwatched
from hordelib.errors import Cancelled, ModelBroken
from hordelib.files.model_key import ModelKey
from hordelib.graph import Graph, Link
from hordelib.graphs.node_names import OUR_NODES, model_keys
from hordelib.graphs.stages.post_process import post_process
from hordelib.job.images import SourceImage
from hordelib.job.params import GenerationParams, PostProcessor, ProcessorKind
from hordelib.job.post_processors import resolve
from hordelib.pictures.face_alignment import LANDMARKS, pose
from hordelib.pictures.face_detection import FaceDetector, load_detector
from hordelib.pictures.matting import closed_form_alpha, subject_colours, trimap
from tests.hordelib.test_engine import SMALL
from tests.support.drawn_faces import draw_face
from tests.support.looks import pixels
from tests.support.tiny_networks import (
    write_brightness,
    write_codeformer,
    write_compact,
    write_dat,
    write_esrgan,
    write_gfpgan,
    write_green_faces,
)

GREEN = (0, 255, 0)


@dataclass(frozen=True)
class Bench:
    """Runs post-processors on given pictures, in real ComfyUI, without a model that draws them."""

    folder: Path

    def __call__(
        self,
        pictures: list[Image.Image],
        *chain: PostProcessor,
        strength: float = 1.0,
        on_step: OnStep = unwatched,
    ) -> list[Image.Image]:
        context = self.context(pictures, on_step, *chain)
        Executor(Device("cpu")).run(_graph(pictures, chain, strength).to_api(), context)
        return [picture.to_pil() for picture in context.pictures]

    def context(
        self, pictures: list[Image.Image], on_step: OnStep, *chain: PostProcessor
    ) -> RunContext:
        models = {key: load(key) for key in model_keys(_graph(pictures, chain, 1.0))}
        images = {f"source_{i}": SourceImage.of_pil(image) for i, image in enumerate(pictures)}
        wanted = tuple(Wanted("", i, 0) for i in range(len(pictures)))
        return RunContext(models, images, on_step, threading.Event(), wanted)

    def upscaler(self, write: Callable[[Path], Path] = write_compact) -> PostProcessor:
        return PostProcessor("up", ProcessorKind.upscaler, write(self.folder / "up.pth"))

    def face_fixer(self, write: Callable[[Path], Path] = write_green_faces) -> PostProcessor:
        return PostProcessor("face", ProcessorKind.face_fixer, write(self.folder / "face.pth"))

    def background(self) -> PostProcessor:
        path = write_brightness(self.folder / "u2net.onnx")
        return PostProcessor("strip_background", ProcessorKind.background, path)


def _graph(pictures: list[Image.Image], chain: tuple[PostProcessor, ...], strength: float) -> Graph:
    graph = Graph()
    for number, picture in enumerate(pictures):
        name = f"source_{number}"
        digest = SourceImage.of_pil(picture).digest
        graph.add(name, "DreamerImage", name=name, digest=digest)
    together = Link("source_0", 0)
    for number in range(1, len(pictures)):
        inputs = {"image1": together, "image2": Link(f"source_{number}", 0)}
        together = Link(graph.add(f"batch_{number}", "ImageBatch", **inputs), 0)
    graph.add("output", "SaveImage", images=together, filename_prefix="dreamer")
    params = GenerationParams(prompt="", post_processing=chain, facefixer_strength=strength)
    post_process(graph, params)
    graph.substitute(OUR_NODES)
    return graph


@pytest.fixture
def bench(engine: Engine, tmp_path: Path) -> Bench:
    engine.start()
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def detector(engine: Engine) -> FaceDetector:
    engine.start()
    return load_detector()


def _is_green(image: Image.Image) -> NDArray[np.bool_]:
    return np.abs(pixels(image) - np.array(GREEN)).max(axis=-1) < 20


# Upscalers


@pytest.mark.parametrize("write", [write_compact, write_esrgan])
def test_a_jobs_picture_comes_out_larger_and_otherwise_the_same(
    engine: Engine, checkpoint: Path, tmp_path: Path, write: Callable[[Path], Path]
):
    write(tmp_path / "esrgan" / "RealESRGAN_x4plus.pth")
    chain = resolve(tmp_path, ["RealESRGAN_x4plus"])
    params = replace(SMALL, images=2, steps=4)
    plain = engine.generate(params, checkpoint).images
    enlarged = engine.generate(replace(params, post_processing=chain), checkpoint).images
    for before, after in zip(plain, enlarged, strict=True):
        assert (after.width, after.height, after.seed) == (256, 256, before.seed)
        repeated = before.to_pil().resize((256, 256), Image.Resampling.NEAREST)
        assert np.abs(pixels(after) - pixels(repeated)).max() <= 1


def test_a_file_of_the_upscalers_folder_that_nobody_knows_serves_with_its_own_scale(bench: Bench):
    twice = bench.upscaler(lambda path: write_compact(path, scale=2))
    (large,) = bench([draw_face(64)], twice)
    assert large.size == (128, 128)


def test_a_large_picture_is_enlarged_in_tiles_that_don_t_show(bench: Bench):
    picture = draw_face(700)
    seen: list[tuple[int, int]] = []
    (large,) = bench(
        [picture], bench.upscaler(), on_step=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    repeated = picture.resize((2800, 2800), Image.Resampling.NEAREST)
    assert np.abs(pixels(large) - pixels(repeated)).max() <= 1


def test_upscaling_stops_between_two_tiles(bench: Bench):
    picture, upscaler = draw_face(700), bench.upscaler()
    seen: list[int] = []

    def cancel(done: int, _total: int) -> None:
        seen.append(done)
        context.cancelled.set()

    context = bench.context([picture], cancel, upscaler)
    with pytest.raises(Cancelled):
        Executor(Device("cpu")).run(_graph([picture], (upscaler,), 1.0).to_api(), context)
    assert seen == [1]


def test_opacity_is_enlarged_beside_the_colours(bench: Bench):
    from hordelib.comfyui.nodes.upscale import DreamerUpscale

    upscaler = bench.upscaler()
    context = bench.context([draw_face(64)], unwatched, upscaler)
    (model,) = context.models.values()
    opacity = torch.linspace(0, 1, 16).expand(16, 16)
    picture = torch.cat((torch.rand(16, 16, 3), opacity[..., None]), -1)[None]
    (large,) = DreamerUpscale().upscale(model, picture, context)
    assert large.shape == (1, 64, 64, 4)
    assert torch.allclose(large[0, 32, ::4, 3], opacity[0], atol=0.05)


def test_dat_computes_at_half_the_precision_where_the_device_is_fast_at_it(
    bench: Bench, tmp_path: Path
):
    network = load_image_model(write_dat(tmp_path / "dat.pth"))
    assert computes_in_bfloat16(network, device_is_fast_at_it=True)
    assert not computes_in_bfloat16(network, device_is_fast_at_it=False)
    assert not computes_in_bfloat16(load_image_model(bench.upscaler().path), True)
    image = torch.rand(1, 3, 16, 16)
    upscaler = Upscaler(network, on_patcher(network.model))
    whole = upscaler(image)
    network.bfloat16()
    half = upscaler(image)
    assert half.dtype == whole.dtype == torch.float32
    assert half.shape == (1, 3, 32, 32)
    assert (half - whole).abs().max() < 0.05


# Face fixers


def test_the_detector_finds_real_faces_and_nothing_else(detector: FaceDetector):
    data = pytest.importorskip("skimage.data")
    (box,) = detector.find(_tensor(Image.fromarray(data.astronaut()))).boxes
    assert torch.allclose(box, torch.tensor((180.0, 58.0, 269.0, 175.0)), atol=12)
    for picture in (data.chelsea(), data.coffee()):
        assert len(detector.find(_tensor(Image.fromarray(picture)))) == 0


@pytest.mark.parametrize("angle", [0, 12, -12])
@pytest.mark.parametrize("side", [96, 400])
def test_a_face_is_turned_upright_and_put_on_the_landmarks(
    detector: FaceDetector, side: int, angle: int
):
    turned = draw_face(side).rotate(angle, Image.Resampling.BICUBIC, fillcolor=(90, 120, 150))
    faces = detector.find(_tensor(turned))
    assert len(faces) == 1
    face = pose(faces.landmarks[0])
    assert (face.to_aligned(faces.landmarks[0]) - torch.tensor(LANDMARKS)).abs().max() < 20
    there_and_back = face.to_picture(face.to_aligned(faces.landmarks))
    assert torch.allclose(there_and_back, faces.landmarks, atol=1e-2)


def test_the_face_is_restored_and_everything_around_it_stays(bench: Bench):
    picture = draw_face(256)
    (fixed,) = bench([picture], bench.face_fixer())
    changed = np.abs(pixels(fixed) - pixels(picture)).max(axis=-1) > 0
    is_green = _is_green(fixed)
    assert is_green[100:180, 100:156].all()  # eyes to mouth
    assert 0.1 < is_green.mean() < 0.4
    rim = np.ones_like(changed)
    rim[20:225, 40:216] = False
    assert not changed[rim].any()


def test_the_strength_is_the_share_of_the_restored_face(bench: Bench):
    picture, fixer = draw_face(128), bench.face_fixer()
    nothing, half, whole = (
        bench([picture], fixer, strength=strength)[0] for strength in (0.0, 0.5, 1.0)
    )
    assert _difference(nothing, picture) == 0
    middle = slice(56, 76)
    between = (pixels(picture) + pixels(whole))[middle, middle] / 2
    assert np.abs(pixels(half)[middle, middle] - between).max() <= 2


def test_every_face_of_a_picture_is_restored(bench: Bench):
    picture = Image.new("RGB", (384, 192), (90, 120, 150))
    for left in (0, 192):
        picture.paste(draw_face(192), (left, 0))
    (fixed,) = bench([picture], bench.face_fixer())
    for left in (0, 192):
        assert _is_green(fixed)[70:130, left + 75 : left + 117].all()
    assert not _is_green(fixed)[:, 182:202].any()


def test_a_picture_of_a_batch_that_has_no_face_stays_bit_for_bit(bench: Bench):
    face, none = draw_face(128), draw_face(128).crop((0, 0, 30, 30)).resize((128, 128))
    first, second, third = bench([none, face, none], bench.face_fixer())
    assert _difference(first, none) == _difference(third, none) == 0
    assert _difference(second, bench([face], bench.face_fixer())[0]) == 0
    assert _is_green(second).any()


def test_gfpgan_runs_in_its_real_size(bench: Bench):
    (fixed,) = bench([draw_face(128)], bench.face_fixer(write_gfpgan))
    assert _is_green(fixed)[50:90, 50:78].all()


@pytest.mark.parametrize("write", [write_gfpgan, write_codeformer])
def test_gfpgan_and_codeformer_take_what_they_are_given(
    bench: Bench, write: Callable[[Path], Path]
):
    """Without computing: CodeFormer takes a quarter of a minute on a CPU."""
    network = load(ModelKey("face_fixer", bench.face_fixer(write).path)).network.to("meta")
    drawn, *_ = network(torch.empty(1, 3, 512, 512, device="meta"), randomize_noise=False)
    assert drawn.shape == (1, 3, 512, 512)


# Backgrounds


def _disc(side: int = 96) -> Image.Image:
    picture = Image.new("RGB", (side, side), "black")
    ImageDraw.Draw(picture).ellipse((side // 4, side // 4, side * 3 // 4, side * 3 // 4), "white")
    return picture


def test_the_background_is_stripped_and_the_file_that_is_sent_is_transparent(
    engine: Engine, checkpoint: Path, tmp_path: Path
):
    write_brightness(tmp_path / "rembg" / "u2net.onnx")
    write_compact(tmp_path / "esrgan" / "RealESRGAN_x2plus.pth", scale=2)
    params = replace(
        SMALL,
        prompt="a white circle on a black background",
        post_processing=resolve(tmp_path, ["strip_background", "RealESRGAN_x2plus"]),
    )
    (picture,) = engine.generate(params, checkpoint).images
    assert (picture.width, picture.height, picture.mode) == (128, 128, "RGBA")
    opacity = np.asarray(Image.open(io.BytesIO(picture.to_webp())).getchannel("A"))
    assert opacity[60:68, 60:68].min() > 250
    assert max(opacity[:8].max(), opacity[-8:].max()) < 5


def test_each_picture_of_a_batch_has_its_own_outline(bench: Bench):
    small, large = _disc(96), _disc(192).crop((48, 48, 144, 144))
    cut = [
        np.asarray(image.getchannel("A")) / 255
        for image in bench([small, large], bench.background())
    ]
    assert abs(cut[0].mean() - np.pi / 16) < 0.02
    assert abs(cut[1].mean() - np.pi / 4) < 0.05


def test_edges_of_a_large_picture_are_found_at_a_bounded_size(bench: Bench):
    (cut,) = bench([_disc(1400)], bench.background())
    assert cut.size == (1400, 1400)
    assert abs((np.asarray(cut.getchannel("A")) / 255).mean() - np.pi / 16) < 0.01


def test_soft_edges_are_found_and_lose_the_colour_behind_them():
    """A disc with a soft edge of known opacity."""
    rows, columns = np.mgrid[:128, :128]
    radius = np.hypot(rows - 64, columns - 64)
    opacity = np.clip((44 - radius) / 8 + 0.5, 0, 1)
    subject, behind = np.array((0.9, 0.6, 0.2)), np.array((0.1, 0.2, 0.6))
    image = opacity[..., None] * subject + (1 - opacity[..., None]) * behind
    found = closed_form_alpha(image, trimap(((radius < 44) * 255).astype(np.uint8)))
    assert np.abs(found - opacity).max() < 0.02
    colours = subject_colours(_channels_first(image), torch.tensor(found).float()[None, None])
    seen = torch.tensor(found) > 0.1
    left = (colours[0].movedim(0, -1) - torch.tensor(subject)).abs()[seen]
    assert left.max() < 0.15  # in the picture itself it is 0.72


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_that_is_all_subject_or_none_is_cut_all_the_same(bench: Bench, value: int):
    (cut,) = bench([Image.new("RGB", (64, 64), (value,) * 3)], bench.background())
    assert cut.mode == "RGBA"


# Files


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("upscaler", b"<html>not found</html>"),
        ("face_fixer", b""),
        ("background", b"\xff" * 500),
    ],
)
def test_a_broken_file_is_named(bench: Bench, tmp_path: Path, kind: str, content: bytes):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match=r"broken\.pth") as caught:
        load(ModelKey(kind, path))
    assert "\n" not in str(caught.value)


def test_a_file_for_something_else_is_refused(bench: Bench):
    with pytest.raises(ModelBroken, match=r"up\.pth .* is no face fixer"):
        load(ModelKey("face_fixer", bench.upscaler().path))
    with pytest.raises(ModelBroken, match=r"face\.pth .* is a face fixer"):
        load(ModelKey("upscaler", bench.face_fixer().path))


def _difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


def _tensor(image: Image.Image) -> torch.Tensor:
    return _channels_first(np.asarray(image) / 255)


def _channels_first(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).movedim(-1, 0)[None]

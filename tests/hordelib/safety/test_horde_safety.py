"""The real horde_safety with small random weights of its own layout, in the judge's own process."""

from __future__ import annotations

import socket
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from hordelib.job.images import Picture
from hordelib.safety.csam import ANIME, CLIP, FOLDER, is_installed, load_checker
from worker.children.judge import JudgePatience, JudgeProcess
from worker.children.messages import JudgeSettings

pytestmark = [
    pytest.mark.skipif(
        not is_installed(), reason="horde_safety is not installed (./update-runtime.sh --safety)"
    ),
    pytest.mark.filterwarnings("ignore"),  # what its packages are warned of is theirs
]

COLOURS = ("black", "white", "red", "lime", "blue", "yellow", "cyan", "magenta")
PATIENCE = JudgePatience(heartbeat=60)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A models folder with the weights, beside an empty home."""
    folder = tmp_path_factory.mktemp("horde_safety")
    (folder / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("AIWORKER_CACHE_HOME", str(folder / "models"))
        for name in ("XDG_CACHE_HOME", "HF_HOME", "TRANSFORMERS_CACHE", "TORCH_HOME"):
            patch.delenv(name, raising=False)
        from tests.support.horde_safety_weights import put_weights

        put_weights(folder / "models")
        yield folder / "models"


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """Plain ones, and one with a pattern, as they are delivered."""
    plain = [Image.new("RGB", (96, 64), colour) for colour in COLOURS]
    gradient = Image.merge("RGB", [Image.linear_gradient("L"), *[Image.radial_gradient("L")] * 2])
    return [
        Picture.of_file(Picture(i.width, i.height, i.tobytes(), seed=0).to_webp(), seed=0)
        for i in (*plain, gradient)
    ]


def by_the_packages_alone(models: Path) -> Any:
    """An NSFWChecker of clip_interrogator's own class, which encodes whole texts, each time anew.

    Only its tables of phrases are left out: they take minutes, and no verdict depends on them.
    """
    from clip_interrogator import Interrogator
    from horde_safety.deep_danbooru_model import get_deep_danbooru_model
    from horde_safety.nsfw_checker_class import NSFWChecker
    from open_clip import get_tokenizer, load_openai_model
    from open_clip.transform import image_transform

    eye = object.__new__(Interrogator)
    eye.config = SimpleNamespace(caption_offload=False)
    eye.device, eye.clip_offloaded, eye.caption_offloaded = "cpu", False, True
    eye.clip_model = load_openai_model(str(models / FOLDER / CLIP.file), "fp32", "cpu").eval()
    eye.clip_preprocess = image_transform(eye.clip_model.visual.image_size, is_train=False)
    eye.tokenize = get_tokenizer("ViT-L-14")
    return NSFWChecker(eye, get_deep_danbooru_model(models / FOLDER / ANIME.file))


def test_scores_are_those_of_the_packages_alone(models: Path, pictures: list[Picture]):
    ours, theirs = load_checker(models), by_the_packages_alone(models)
    kinds: set[bool] = set()
    for picture in pictures:
        found: Any = ours.check_for_nsfw(picture.to_pil(), prompt="a picture###old")
        wanted = theirs.check_for_nsfw(picture.to_pil(), prompt="a picture###old")
        for scores in ("all_predicate_scores", "nsfw_similarity_results"):
            assert getattr(found, scores) == pytest.approx(getattr(wanted, scores), abs=2e-4)
        assert (found.is_nsfw, found.is_csam) == (wanted.is_nsfw, wanted.is_csam)
        kinds.add(found.is_anime)
    assert kinds == {True, False}  # both ways through the checker were taken


def test_the_judges_process_has_its_verdicts_and_touches_nothing_else(
    models: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
):
    before = sorted(models.rglob("*"))
    checker = load_checker(models)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        judge = JudgeProcess(JudgeSettings(models, True, models.parent / "judge.log"), PATIENCE)
        assert judge.start() == "NudeNet, horde_safety"
        for index, picture in enumerate(pictures):
            verdict = judge.judge("a", index, picture.to_webp(), "a picture")
            wanted: Any = checker.check_for_nsfw(picture.to_pil(), prompt="a picture")
            assert (verdict.nsfw, verdict.csam) == (wanted.is_nsfw, wanted.is_csam)
        judge.stop()
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert sorted(models.rglob("*")) == before
    assert list((models.parent / "home").rglob("*")) == []

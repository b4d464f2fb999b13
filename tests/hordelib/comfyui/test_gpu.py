"""On an NVIDIA card, `test -m gpu`; in a child process, so that other tests keep the CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hordelib.demo_model import ensure_lora
from hordelib.demo_model.shapes import Scene
from hordelib.files.model import Model
from hordelib.job.params import Lora
from hordelib.job.samplers import SAMPLERS
from tests.hordelib.test_engine import SMALL
from tests.support.looks import Apart, apart, difference, look
from tests.support.owner import PROJECT
from worker.children.engine import EngineProcess
from worker.children.messages import EngineSettings
from worker.devices import first_card

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineProcess]:
    log_file = tmp_path_factory.mktemp("gpu") / "engine.log"
    process = EngineProcess(EngineSettings(None, "cuda:0", 1 << 28, 1 << 30, log_file))
    assert process.start() == "cuda:0"
    yield process
    process.stop()


def test_the_picture_shows_what_the_prompt_says(child: EngineProcess, checkpoint: Path):
    (picture,) = child.generate(SMALL, Model.of_checkpoint(checkpoint)).images
    seen = look(picture, Scene("circle", "red", "blue"))
    assert (seen.colour, seen.background) == ("red", "blue")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_image_i_of_a_batch_is_the_picture_of_seed_plus_i(
    child: EngineProcess, checkpoint: Path, sampler: str
):
    """But for roundings: cuDNN and cuBLAS have other kernels for other batches."""
    batch = replace(SMALL, sampler=SAMPLERS[sampler], images=3, steps=5)
    for picture in child.generate(batch, Model.of_checkpoint(checkpoint)).images:
        alone = replace(batch, images=1, seed=picture.seed)
        (single,) = child.generate(alone, Model.of_checkpoint(checkpoint)).images
        assert apart(picture, single).is_nothing


def test_the_cards_own_clock_divides_a_run(child: EngineProcess, checkpoint: Path):
    made = child.generate(replace(SMALL, seed=5, steps=20), Model.of_checkpoint(checkpoint))
    assert sum(made.phases.values()) == pytest.approx(made.run_seconds, rel=0.2)
    assert made.phases["sampling"] > made.phases["decoding"] > 0


ROOM_BYTES = 3 << 29  # CUDA's own part, one demo model and its work: not two of them and much more


@pytest.fixture
def two_models(checkpoint: Path, tmp_path: Path) -> list[Model]:
    paths = [tmp_path / f"copy {i}.safetensors" for i in range(2)]
    for path in paths:
        shutil.copyfile(checkpoint, path)
    return [Model.of_checkpoint(path) for path in paths]


def test_memory_is_left_free_at_each_step_while_two_models_take_turns(
    two_models: list[Model], tmp_path: Path
):
    """What of the card is free now is to stay so, but for 1.5 GiB: as NVML tells, at any step."""
    before = first_card()
    assert before is not None
    reserve_bytes = before.free_bytes - ROOM_BYTES
    free: list[int] = []

    def watch(_done: int, _total: int) -> None:
        card = first_card()
        assert card is not None
        free.append(card.free_bytes)

    settings = EngineSettings(None, "cuda:0", 1 << 28, reserve_bytes, tmp_path / "engine.log")
    process = EngineProcess(settings)
    process.start()
    try:
        pictures = [
            process.generate(replace(SMALL, width=256, height=256, images=4), model, watch)
            for model in two_models * 3
        ]
        watch(0, 0)
    finally:
        process.stop()
    assert len(free) > 6 * SMALL.steps
    assert min(free) >= reserve_bytes
    first, *others = (each.images[0] for each in pictures)
    assert all(difference(first, other) == 0 for other in others)


def said_by(module: str, checkpoint: Path) -> dict[str, Any]:
    """What a process of its own prints, as JSON."""
    command = [sys.executable, "-P", "-m", module, str(checkpoint)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_picture_is_the_same_after_another_lora_and_after_none(
    child: EngineProcess, checkpoint: Path, models: Path
):
    lora = Lora("demo", ensure_lora(models))
    plain, weak = SMALL, replace(SMALL, loras=(replace(lora, model=0.5),))
    strong = replace(SMALL, loras=(lora,))
    turns = [plain, strong, weak, plain, weak, strong, strong, plain]
    made = [child.generate(turn, Model.of_checkpoint(checkpoint)).images[0] for turn in turns]
    for turn, picture in zip(turns, made, strict=True):
        assert difference(picture, made[turns.index(turn)]) == 0
    assert difference(made[0], made[1]) > 0 < difference(made[1], made[2])


def test_the_picture_is_the_same_after_half_of_each_model_left_the_card(checkpoint: Path):
    seen = said_by("tests.support.cuda_moves", checkpoint)
    if not seen["parts"]:
        pytest.skip("this card computes in another type than the file has")
    for had_bytes, has_bytes in seen["parts"].values():
        assert 0 < has_bytes <= had_bytes / 2
    assert seen["difference"] == 0


def test_a_batch_without_memory_is_halved_and_its_pictures_are_the_same(checkpoint: Path):
    """Its process is one of its own for the allocator's limit: see `tests.support.cuda_limit`."""
    seen = said_by("tests.support.cuda_limit", checkpoint)
    assert seen["sizes"][0] == 2 * seen["images"]  # both prompts of each image
    assert min(seen["sizes"]) <= seen["images"]
    assert all(Apart(*each).is_nothing for each in seen["apart"])

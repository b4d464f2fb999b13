"""On an NVIDIA card, `test -m gpu`; in a child process, so that other tests keep the CPU."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from hordelib.demo_model.shapes import Scene
from hordelib.model import Model
from hordelib.samplers import SAMPLERS
from tests.looks import difference, look
from tests.test_engine import SMALL
from worker.devices import first_card
from worker.engine_process import EngineProcess
from worker.messages import EngineSettings

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
    batch = replace(SMALL, sampler=SAMPLERS[sampler], images=3, steps=5)
    for picture in child.generate(batch, Model.of_checkpoint(checkpoint)).images:
        alone = replace(batch, images=1, seed=picture.seed)
        (single,) = child.generate(alone, Model.of_checkpoint(checkpoint)).images
        assert difference(picture, single) <= 2


def test_the_cards_own_clock_divides_a_run(child: EngineProcess, checkpoint: Path):
    made = child.generate(replace(SMALL, seed=5, steps=20), Model.of_checkpoint(checkpoint))
    assert sum(made.phases.values()) == pytest.approx(made.run_seconds, rel=0.2)
    assert made.phases["sampling"] > made.phases["decoding"] > 0


def test_memory_is_left_free(checkpoint: Path, tmp_path: Path):
    """All but 1.5 GiB of what is free is to stay so: CUDA's own part and a small model fit in."""
    before = first_card()
    assert before is not None
    reserve_bytes = before.free_bytes - (3 << 29)
    settings = EngineSettings(None, "cuda:0", 1 << 28, reserve_bytes, tmp_path / "engine.log")
    process = EngineProcess(settings)
    process.start()
    process.generate(replace(SMALL, images=4), Model.of_checkpoint(checkpoint))
    after = first_card()
    process.stop()
    assert after is not None
    assert after.free_bytes >= reserve_bytes

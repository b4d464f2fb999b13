"""Post-processing within the budgets: its networks, and what they take while they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hordelib import Engine
from hordelib.errors import OutOfMemory
from hordelib.files.model_key import ModelKey
from hordelib.job.params import GenerationParams, PostProcessor, ProcessorKind
from hordelib.memory.cache import ModelCache
from hordelib.memory.corrections import Corrections
from hordelib.memory.post_processing import Pictures, ProcessingEstimates, pictures_of
from tests.hordelib.comfyui.test_batches import MISNAMED, out_of_memory
from tests.hordelib.memory.test_engine_memory import MIB, Container
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference
from tests.support.simulated_device import KIB, Machine, SimulatedMemory, file_maker
from tests.support.tiny_networks import write_compact, write_green_faces

UPSCALER = ModelKey("upscaler", Path("up.pth"))
PICTURE = Pictures(512, 512, images=1, scale=4)


def test_tiles_are_as_large_as_there_is_room_for():
    estimates = ProcessingEstimates(Corrections("cpu"))
    rooms = (8 << 30, 2 << 30, 512 << 20, 0)
    planned = [estimates.of(UPSCALER, PICTURE, room) for room in rooms]
    assert [each.side for each in planned] == [512, 256, 128, 128]
    assert all(each.working_bytes <= room for each, room in zip(planned[:3], rooms, strict=False))


def test_a_picture_smaller_than_a_tile_takes_less():
    estimates = ProcessingEstimates(Corrections("cpu"))
    small = estimates.of(UPSCALER, replace(PICTURE, width=64), 8 << 30)
    assert small.working_bytes < estimates.of(UPSCALER, PICTURE, 8 << 30).working_bytes / 4


def test_each_file_learns_from_what_it_took():
    estimates = ProcessingEstimates(Corrections("cpu"))
    first = estimates.of(UPSCALER, PICTURE, 8 << 30).working_bytes
    for _ in range(20):
        predicted = estimates.of(UPSCALER, PICTURE, 8 << 30).working_bytes
        estimates.correct(UPSCALER, predicted, first // 10)
    learnt = estimates.of(UPSCALER, PICTURE, 8 << 30).working_bytes
    assert first // 10 < learnt < first // 5
    estimates.correct(UPSCALER, learnt, first)
    assert estimates.of(UPSCALER, PICTURE, 8 << 30).working_bytes == pytest.approx(first, rel=0.1)
    other = replace(UPSCALER, path=Path("other.pth"))
    assert estimates.of(other, PICTURE, 8 << 30).working_bytes == first


def test_an_upscaler_after_another_one_gets_the_larger_picture():
    chain = tuple(
        PostProcessor(name, ProcessorKind.upscaler, Path(name)) for name in ("twice", "again")
    )
    params = GenerationParams(prompt="", width=64, height=128, images=3, post_processing=chain)
    first, second = (pictures for _, pictures in pictures_of(params, lambda _: 2))
    assert (first.width, first.height) == (64, 128)
    assert (second.width, second.height, second.images) == (128, 256, 3)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("kind", "write"), [("upscaler", write_compact), ("face_fixer", write_green_faces)]
)
def test_a_network_is_counted_while_it_is_on_a_card_and_comes_off_it(
    kind: str, write: Callable[[Path], Path], tmp_path: Path
):
    """The device of type meta keeps no values, and is none of main memory."""
    from hordelib.comfyui.loaders import load_part
    from hordelib.memory.mapped_weights import MappedWeights
    from hordelib.memory.parts import Patched

    part = load_part(ModelKey(kind, write(tmp_path / "network.pth")))
    (patcher,) = part.patchers
    patcher.load_device = torch.device("meta")
    on_card = Patched(part.value, patcher, MappedWeights())
    assert on_card.missing_bytes == patcher.model_size() == on_card.host_bytes > 0
    assert not on_card.can_stream
    patcher.model.model_loaded_weight_memory = patcher.model_size()
    assert (on_card.missing_bytes, on_card.host_bytes) == (0, 0)
    assert on_card.device_bytes == patcher.model_size()


def test_what_computes_in_main_memory_is_promised_room_there(tmp_path: Path):
    machine = Machine(
        host=SimulatedMemory(1000 * KIB, reserve_bytes=100 * KIB),
        device=SimulatedMemory(300 * KIB, reserve_bytes=100 * KIB),
    )
    cache = ModelCache(machine.read, machine.host.budget, machine.device.budget)
    file = file_maker(tmp_path)
    idle, cutter = file("idle", 400), file("cutter", 100)
    with cache.hold(idle):
        pass
    with cache.hold(cutter) as held:
        held.part.computes_in_host = True
        held.part.is_on_device = True  # it is where it computes
        machine.host.take(0)
        with held.lend(working_bytes=500 * KIB):  # more than the card has
            assert not cache.holds(idle)
        with pytest.raises(OutOfMemory), held.lend(working_bytes=900 * KIB):
            pass
        held.part.is_on_device = False
    assert machine.host.was_kept


@pytest.fixture
def upscaler(tmp_path: Path) -> PostProcessor:
    return PostProcessor("up", ProcessorKind.upscaler, write_compact(tmp_path / "up.pth"))


@pytest.mark.parametrize("error", MISNAMED, ids=lambda error: str(error)[:40])
def test_tiles_are_smaller_where_memory_runs_out_by_another_name(
    engine: Engine, checkpoint: Path, upscaler: PostProcessor, error: Exception
):
    from hordelib.comfyui.loaders.image_networks import Upscaler

    job = replace(SMALL, width=256, height=256, steps=1, post_processing=(upscaler,))
    job = replace(job, prompt=str(error))  # nothing is kept of another one

    def too_large(tile: Tensor) -> bool:
        return tile.shape[-1] > 128

    with out_of_memory(Upscaler, "__call__", too_large, error) as tiles:
        (picture,) = engine.generate(job, checkpoint).images
    assert len(tiles) > 4
    assert picture.width > 256


def test_upscaling_keeps_to_the_budget_with_smaller_tiles(
    engine: Engine, checkpoint: Path, upscaler: PostProcessor
):
    job = replace(SMALL, width=256, height=256, steps=1, post_processing=(upscaler,))
    tiles: list[tuple[int, int]] = []
    container = Container(1 << 60)

    def watch(done: int, total: int) -> None:
        container.watch(done, total)
        tiles.append((done, total))

    whole = engine.generate(job, checkpoint, watch).images[0]
    assert tiles[-1] == (1, 1)
    container = Container.with_room(700 * MIB)
    with Engine(ram_reserve_bytes=64 * MIB, free_ram_bytes=container.free_bytes) as tight:
        made = tight.generate(job, checkpoint, watch)
        assert tiles[-1] == (9, 9)
        assert container.lowest_bytes >= 64 * MIB
        assert difference(whole, made.images[0]) <= 1  # rounding
    container = Container.with_room(400 * MIB)
    with (
        Engine(ram_reserve_bytes=64 * MIB, free_ram_bytes=container.free_bytes) as tighter,
        pytest.raises(OutOfMemory, match=r"up\.pth .* needs .* lower ram_to_leave_free"),
    ):
        tighter.generate(job, checkpoint)

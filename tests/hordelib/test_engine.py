"""Real ComfyUI with the demo model: do the pictures show what was asked, and are they the same?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from hordelib import Engine, GenerationParams, Picture
from hordelib.demo_model.shapes import Scene
from hordelib.errors import Cancelled, EngineError, ModelBroken, ModelMissing, RuntimeMissing
from hordelib.files.model import Model
from hordelib.job.families import SD1
from hordelib.job.samplers import SAMPLERS, SamplerOptions, Scheduler
from tests.support.layouts import write_sd2, write_sdxl
from tests.support.looks import difference, look, pixels

SMALL = GenerationParams(
    prompt="a red circle on a blue background",
    width=64,
    height=64,
    seed=11,
    steps=8,
    cfg=4.0,
    sampler=SAMPLERS["k_euler"],
)

SCENES = (
    Scene("circle", "red", "blue"),
    Scene("star", "yellow", "purple", size="large"),
    Scene("square", "green", "white"),
    Scene("diamond", "pink", "black", place="at the top"),
    Scene("cross", "white", "green", place="on the left"),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.caption)
def test_the_picture_shows_what_the_prompt_says(engine: Engine, checkpoint: Path, scene: Scene):
    params = replace(SMALL, prompt=scene.caption, seed=3)
    (picture,) = engine.generate(params, checkpoint).images
    seen = look(picture, scene)
    assert (seen.colour, seen.background) == (scene.colour, scene.background)
    assert seen.overlap > 0.5


def test_the_same_job_twice_gives_the_same_bytes(engine: Engine, checkpoint: Path):
    other = replace(SMALL, prompt="a green heart on a white background")
    first = engine.generate(SMALL, checkpoint).images[0].to_webp()
    engine.generate(other, checkpoint)  # so that nothing is left of the first one
    again = engine.generate(SMALL, checkpoint).images[0].to_webp()
    repeated = engine.generate(SMALL, checkpoint).images[0].to_webp()
    assert first == again == repeated


CHANGES = {
    "prompt": replace(SMALL, prompt="a red circle on a green background"),
    "negative prompt": replace(SMALL, negative_prompt="a white square on a black background"),
    "weight": replace(SMALL, prompt="a (red:0.4) circle on a blue background"),
    "seed": replace(SMALL, seed=12),
    "cfg": replace(SMALL, cfg=6.0),
    "steps": replace(SMALL, steps=9),
    "sampler": replace(SMALL, sampler=SAMPLERS["k_heun"]),
    "scheduler": replace(SMALL, scheduler=Scheduler.karras),
    "clip skip": replace(SMALL, clip_skip=2),
}


@pytest.fixture(scope="module")
def before(engine: Engine, checkpoint: Path) -> Picture:
    return engine.generate(SMALL, checkpoint).images[0]


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_asked_differently_looks_different(
    engine: Engine, checkpoint: Path, before: Picture, what: str
):
    after = engine.generate(CHANGES[what], checkpoint).images[0]
    assert difference(before, after) > 2


def test_the_picture_has_the_size_that_was_asked_for(engine: Engine, checkpoint: Path):
    wide = replace(SMALL, width=192, height=64, steps=2)
    (picture,) = engine.generate(wide, checkpoint).images
    assert pixels(picture).shape == (64, 192, 3)


def test_hires_fix_samples_twice_and_ends_at_the_size_asked_for(engine: Engine, checkpoint: Path):
    """With a family of the demo model's own size, so that 128 pixels take two passes."""
    totals: list[int] = []
    small = replace(Model.of_checkpoint(checkpoint), family=replace(SD1, native_side=64))
    params = replace(SMALL, width=128, height=128, steps=2, hires_fix=True)
    (picture,) = engine.generate(params, small, lambda _, total: totals.append(total)).images
    assert pixels(picture).shape == (128, 128, 3)
    assert len(totals) == 4  # two steps, twice


# One for each way to draw noise and to guide; test_samplers.py has them all, without a network.
KINDS: dict[str, SamplerOptions] = {
    "k_heun": SamplerOptions(s_churn=10.0),
    "k_lms": SamplerOptions(order=2),
    "k_dpm_adaptive": SamplerOptions(order=2),
    "k_dpmpp_sde": SamplerOptions(eta=0.7),
    "euler_ancestral_cfg_pp": SamplerOptions(),
    "seeds_2": SamplerOptions(solver_type="phi_2"),
    "sa_solver": SamplerOptions(s_noise=0.9),
    "exp_heun_2_x0_sde": SamplerOptions(),
    "uni_pc": SamplerOptions(),
}


@pytest.mark.parametrize("sampler", KINDS)
def test_image_i_of_a_batch_is_the_picture_of_seed_plus_i(
    engine: Engine, checkpoint: Path, sampler: str
):
    row, options = SAMPLERS[sampler], KINDS[sampler]
    batch = replace(SMALL, sampler=row, sampler_options=options, images=2, steps=3)
    batch = replace(batch, seed=(1 << 64) - 1)
    together = engine.generate(batch, checkpoint).images
    assert [picture.seed for picture in together] == [(1 << 64) - 1, 0]
    for picture in together:
        alone = replace(batch, images=1, seed=picture.seed)
        assert difference(picture, engine.generate(alone, checkpoint).images[0]) <= 2


def test_a_bounded_dpm_adaptive_is_disclosed(engine: Engine, checkpoint: Path):
    job = replace(SMALL, sampler=SAMPLERS["k_dpm_adaptive"], steps=3, images=2)
    made = engine.generate(job, checkpoint)
    again = engine.generate(job, checkpoint)  # a result that is kept is told of, too
    for (note,) in (made.notes, again.notes):
        assert note.ref == "the sampler dpm_adaptive was stopped after 4 iterations"
    assert look(made.images[0], SCENES[0]).background == "blue"


# ---- without the negative prompt -------------------------------------------------------------


@pytest.fixture
def rows() -> Iterator[list[int]]:
    """How many pictures each run of a UNet is given."""
    seen: list[int] = []

    def count(module: torch.nn.Module, arguments: tuple[Any, ...], _result: object) -> None:
        if type(module).__name__ == "UNetModel":
            seen.append(len(arguments[0]))

    hook = register_module_forward_hook(count)
    yield seen
    hook.remove()


def test_at_a_cfg_scale_of_1_the_negative_prompt_costs_nothing(
    engine: Engine, checkpoint: Path, rows: list[int]
):
    """The same picture to the bit, by half of the network's work."""
    plain = replace(SMALL, cfg=1.0, steps=3)
    first = engine.generate(plain, checkpoint).images[0]
    assert rows == [1, 1, 1]
    other = replace(plain, negative_prompt="a white star, " * 30)
    assert engine.generate(other, checkpoint).images[0].to_webp() == first.to_webp()
    rows.clear()
    engine.generate(replace(plain, cfg=2.0), checkpoint)
    assert rows == [2, 2, 2]


def test_cfg_pp_reads_the_negative_prompt_at_a_cfg_scale_of_1(
    engine: Engine, checkpoint: Path, rows: list[int]
):
    guided = replace(SMALL, cfg=1.0, steps=3, sampler=SAMPLERS["euler_cfg_pp"])
    first = engine.generate(guided, checkpoint).images[0]
    assert rows == [2, 2, 2]
    other = replace(guided, negative_prompt="a white star on a black background")
    assert difference(first, engine.generate(other, checkpoint).images[0]) > 2


def test_a_long_prompt_is_used_to_its_end(engine: Engine, checkpoint: Path):
    filler = ", ".join(["plain"] * 90)
    one, other = (
        engine.generate(replace(SMALL, prompt=f"{filler}, {end}"), checkpoint).images[0]
        for end in ("a red circle on a blue background", "a white star on a green background")
    )
    assert difference(one, other) > 20


def test_steps_are_reported_one_by_one(engine: Engine, checkpoint: Path):
    seen: list[tuple[int, int]] = []
    engine.generate(
        replace(SMALL, steps=4), checkpoint, lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_that_all_files_are_in_memory_is_told_before_the_first_step(
    engine: Engine, checkpoint: Path
):
    told: list[str] = []
    engine.generate(
        replace(SMALL, steps=1),
        checkpoint,
        lambda _done, _total: told.append("stepped"),
        on_loaded=lambda: told.append("loaded"),
    )
    assert told == ["loaded", "stepped"]


def test_a_job_error_of_a_hook_ends_the_job_and_the_next_one_runs(engine: Engine, checkpoint: Path):
    def refuse(*_: int) -> None:
        raise Cancelled("not wanted")

    with pytest.raises(Cancelled, match="not wanted"):
        engine.generate(SMALL, checkpoint, refuse)
    with pytest.raises(Cancelled, match="not wanted"):
        engine.generate(SMALL, checkpoint, on_loaded=refuse)
    assert engine.generate(replace(SMALL, steps=1), checkpoint).images


def test_a_cancelled_job_stops_within_a_step_and_the_next_one_runs(
    engine: Engine, checkpoint: Path
):
    seen: list[int] = []

    def cancel_at_the_third(done: int, _total: int) -> None:
        seen.append(done)
        if done == 3:
            threading.Thread(target=engine.cancel).start()

    with pytest.raises(Cancelled):
        engine.generate(replace(SMALL, steps=200), checkpoint, cancel_at_the_third)
    assert len(seen) < 200
    assert engine.generate(replace(SMALL, steps=1), checkpoint).images


def test_it_serves_inside_a_running_event_loop(engine: Engine, checkpoint: Path):
    async def inside() -> int:
        return len(engine.generate(replace(SMALL, steps=1), checkpoint).images)

    assert asyncio.run(inside()) == 1


def test_a_second_engine_shares_the_process(engine: Engine, checkpoint: Path):
    with Engine() as second:
        theirs = second.generate(SMALL, checkpoint).images[0]
    assert difference(theirs, engine.generate(SMALL, checkpoint).images[0]) == 0


def test_a_missing_model_is_named(engine: Engine, tmp_path: Path):
    with pytest.raises(ModelMissing, match=r"nothing\.safetensors"):
        engine.generate(SMALL, tmp_path / "nothing.safetensors")


def _broken_files(folder: Path, checkpoint: Path) -> Iterator[Path]:
    start = checkpoint.read_bytes()[: 1 << 20]
    for name, content in {
        "cut-off.safetensors": start,
        "garbage.safetensors": b"\xff" * 5000,
        "empty.safetensors": b"",
        "page.ckpt": b"<html>not found</html>",
        "no-model.safetensors": (2).to_bytes(8, "little") + b"{}",
    }.items():
        path = folder / name
        path.write_bytes(content)
        yield path


def test_broken_model_files_are_named_and_the_next_job_runs(
    engine: Engine, checkpoint: Path, tmp_path: Path
):
    for path in _broken_files(tmp_path, checkpoint):
        with pytest.raises(ModelBroken, match=path.name) as caught:
            engine.generate(SMALL, path)
        assert "\n" not in str(caught.value)
    assert engine.generate(replace(SMALL, steps=1), checkpoint).images


def test_a_folder_without_comfyui_is_said_so(tmp_path: Path):
    with Engine(comfyui=tmp_path) as engine, pytest.raises(RuntimeMissing, match=str(tmp_path)):
        engine.start()


def test_another_comfyui_in_one_process_is_refused(engine: Engine, tmp_path: Path):
    (tmp_path / "execution.py").touch()
    with Engine(comfyui=tmp_path) as other, pytest.raises(EngineError, match="needs its own"):
        other.start()


def test_another_device_in_one_process_is_refused(engine: Engine):
    used = engine.start()
    wanted = "cpu" if used != "cpu" else "cuda:0"
    with Engine(device=wanted) as other, pytest.raises(EngineError, match="of its own"):
        other.start()


ENOUGH_BYTES = 12 << 30  # the XL layout takes 7 GB


@pytest.mark.parametrize(("write", "family"), [(write_sd2, "BaseModel"), (write_sdxl, "SDXL")])
def test_larger_families_run_in_their_real_layouts(
    engine: Engine, tmp_path: Path, write: Callable[[Path], Path], family: str
):
    if family == "SDXL" and psutil.virtual_memory().available < ENOUGH_BYTES:
        pytest.skip("needs 12 GiB of free memory")
    path = write(tmp_path / f"{family}.safetensors")
    params = replace(SMALL, steps=1, images=2, clip_skip=2, negative_prompt="dull")
    images = engine.generate(params, path).images
    assert [pixels(picture).shape for picture in images] == [(64, 64, 3)] * 2

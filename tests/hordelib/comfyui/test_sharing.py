"""Jobs that share a batch: each gets the pictures that it would have got alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from hordelib import Engine, GenerationParams
from hordelib.files.model import Model
from hordelib.job.batching import Member, share_key
from hordelib.job.families import FAMILIES
from hordelib.job.images import SourceImage
from hordelib.job.params import FromImage, Lora
from hordelib.job.samplers import SAMPLERS
from tests.hordelib.comfyui.test_loras import ensure_lora
from tests.support.looks import difference

SD1 = FAMILIES["stable diffusion 1"]
SMALL = GenerationParams(
    prompt="a red circle on a blue background",
    width=64,
    height=64,
    seed=11,
    steps=6,
    cfg=4.0,
    sampler=SAMPLERS["k_euler"],
)
MANY_WORDS = "a yellow star on a purple background, " + ", ".join(f"number {i}" for i in range(40))
DIFFERENT = (
    SMALL,
    replace(SMALL, prompt="a green heart on a white background", seed=900, cfg=7.5),
    replace(SMALL, prompt=MANY_WORDS, negative_prompt="plain", images=2, seed=5),
    replace(SMALL, prompt="a (white:1.3) square on a black background", cfg=1.0),
)


def members(params: Sequence[GenerationParams]) -> list[Member]:
    return [Member(f"job {i}", each) for i, each in enumerate(params)]


@pytest.mark.parametrize(
    "sampler", ["k_euler", "k_euler_a", "k_dpmpp_2m", "k_dpmpp_sde", "euler_ancestral_cfg_pp"]
)
def test_pictures_are_those_of_each_job_alone(engine: Engine, checkpoint: Path, sampler: str):
    jobs = [replace(params, sampler=SAMPLERS[sampler]) for params in DIFFERENT]
    together = engine.generate_together(members(jobs), Model.of_checkpoint(checkpoint))
    for i, (params, generation) in enumerate(zip(jobs, together, strict=True)):
        alone = engine.generate(params, checkpoint, job_id=f"job {i}").images
        assert [image.seed for image in generation.images] == [image.seed for image in alone]
        assert generation.share == pytest.approx(params.images / 5)
        assert [(image.job_id, image.index) for image in generation.images] == [
            (f"job {i}", index) for index in range(params.images)
        ]
        for mine, single in zip(generation.images, alone, strict=True):
            assert difference(mine, single) <= 2


def test_source_pictures_loras_and_hires_are_shared_too(
    engine: Engine, checkpoint: Path, models: Path
):
    red, blue = (
        SourceImage(size, size, "RGB", bytes(colour) * size**2)
        for size, colour in ((64, (200, 20, 20)), (96, (20, 20, 200)))
    )
    lora = Lora("demo", ensure_lora(models), 0.8)
    first = replace(SMALL, source=FromImage(red), denoise=0.6, loras=(lora,))
    second = replace(first, source=FromImage(blue), images=2, seed=77, cfg=6.0)
    together = engine.generate_together(members([first, second]), Model.of_checkpoint(checkpoint))
    for params, generation in zip((first, second), together, strict=True):
        alone = engine.generate(params, checkpoint).images
        for mine, single in zip(generation.images, alone, strict=True):
            assert difference(mine, single) <= 2


def test_what_is_disclosed_goes_to_its_own_job(engine: Engine, checkpoint: Path):
    wild = replace(SMALL, prompt="a (red:50) circle on a blue background")
    plain, tamed = engine.generate_together(members([SMALL, wild]), Model.of_checkpoint(checkpoint))
    assert not plain.notes
    assert "brought down" in str(tamed.notes)


def test_seconds_by_phase_sum_to_those_of_the_run(engine: Engine, checkpoint: Path):
    generation = engine.generate(replace(SMALL, seed=4711), checkpoint)
    assert set(generation.phases) >= {"text", "sampling", "decoding", "other"}
    assert 0.8 < sum(generation.phases.values()) / generation.run_seconds <= 1


def test_jobs_that_do_not_agree_are_refused(engine: Engine, checkpoint: Path):
    larger = replace(SMALL, width=128)
    with pytest.raises(ValueError, match="can't share"):
        engine.generate_together(members([SMALL, larger]), Model.of_checkpoint(checkpoint))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 128},
        {"steps": 7},
        {"sampler": SAMPLERS["k_heun"]},
        {"denoise": 0.5},
        {"clip_skip": 2},
        {"tiling": True},
        {"loras": (Lora("a", Path("a.safetensors")),)},
    ],
    ids=str,
)
def test_jobs_share_when_all_steps_agree(change: dict[str, object]):
    other = replace(SMALL, prompt="b", negative_prompt="c", seed=1, cfg=9, images=3)
    assert share_key(SMALL, SD1) == share_key(other, SD1)
    assert share_key(SMALL, SD1) != share_key(replace(SMALL, **change), SD1)


def test_a_sampler_with_one_step_size_for_all_images_shares_with_nobody():
    adaptive = replace(SMALL, sampler=SAMPLERS["k_dpm_adaptive"])
    assert share_key(adaptive, SD1) is None
    assert share_key(SMALL, FAMILIES["flux_1"]) is None


def test_post_processing_alone_shares_with_nobody():
    red = SourceImage(64, 64, "RGB", bytes((255, 0, 0)) * 64**2)
    of_source = replace(SMALL, source=FromImage(red), keep_source=True)
    assert share_key(replace(of_source, keep_source=False), SD1) is not None
    assert share_key(of_source, SD1) is None


@pytest.fixture
def passes() -> Iterator[list[int]]:
    """How many chunks each pass of a text encoder had."""
    seen: list[int] = []

    def count(module: torch.nn.Module, arguments: tuple[Any, ...], _result: object) -> None:
        if "ClipModel" in type(module).__name__:
            seen.append(len(arguments[0]))

    hook = register_module_forward_hook(count)
    yield seen
    hook.remove()


def test_all_prompts_of_a_run_are_encoded_in_one_pass_and_none_again(
    engine: Engine, checkpoint: Path, passes: list[int]
):
    jobs = [replace(SMALL, prompt=f"word {i}", negative_prompt="unheard of") for i in range(3)]
    model = Model.of_checkpoint(checkpoint)
    engine.generate_together(members(jobs), model)
    assert passes == [4]  # three prompts and the negative one
    other = replace(jobs[0], seed=99, negative_prompt="something else")
    engine.generate_together(members([jobs[2], jobs[1]]), model)
    engine.generate(other, model)
    assert passes == [4, 1]


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ([77, 77, 77], [(0, 3)]),
        ([77, 154, 77], [(0, 3)]),
        ([154, 231], [(0, 2)]),  # 462 is just twice the longest
        ([231, 308, 308], [(0, 1), (1, 3)]),
        ([77, 231, 385, 385], [(0, 2), (2, 4)]),
    ],
)
def test_images_are_sampled_together_where_their_prompts_have_a_short_common_length(
    engine: Engine, lengths: list[int], runs: list[tuple[int, int]]
):
    engine.start()  # ComfyUI, which the module needs
    from hordelib.comfyui.nodes.batches import companies

    assert [(each.start, each.stop) for each in companies(lengths)] == runs

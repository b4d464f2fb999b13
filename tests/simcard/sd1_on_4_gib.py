"""Scenarios of Stable Diffusion 1.5, and one of Flux, on a card of 4 GiB, with shapes alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image

from hordelib.errors import HordelibError
from hordelib.job.control_types import ControlType
from hordelib.job.images import SourceImage
from hordelib.job.params import Control, PostProcessor, ProcessorKind
from hordelib.memory.parts import value_bytes
from tests.simcard.bench import JOB, Bench, Scenario, tell
from tests.simcard.card import MIB, Card, Fault, Matches, at
from tests.simcard.large_models import write_flux
from tests.simcard.whole_models import (
    write_whole_control_net,
    write_whole_sd1,
    write_whole_upscaler,
)
from tests.support.whole_checkpoint import load_whole

TINY = replace(JOB, width=64, height=64)
CUDA_OOM = "CUDA out of memory. Tried to allocate 20.00 MiB."


def models(bench: Bench) -> list[Path]:
    paths = [bench.folder / f"{name}.safetensors" for name in ("one", "other")]
    return [path if path.exists() else write_whole_sd1(path) for path in paths]


def two_models_in_turn(bench: Bench) -> Mapping[str, Any]:
    """Each in turn, so that neither can stay."""
    made = [bench.make(replace(JOB, seed=i), models(bench)[i % 2]) for i in range(3)]
    return {"jobs": made, "left": bench.evict(), "reserve": bench.reserve_bytes // MIB}


def one_model_again_and_again(bench: Bench) -> Mapping[str, Any]:
    path = models(bench)[0]
    prompts = [f"a circle, the {i}th" for i in range(3)]
    return {"jobs": [bench.make(replace(JOB, prompt=prompt), path) for prompt in prompts]}


def many_prompts(bench: Bench) -> Mapping[str, Any]:
    bench.evict()
    path = models(bench)[0]
    bench.make(replace(TINY, prompt="the first"), path)
    before = bench.evict()
    for i in range(4):
        bench.make(replace(TINY, prompt=f"number {i}", negative_prompt=f"other {i}"), path)
    return {"before": before, "after": bench.evict()}


def schedules(bench: Bench) -> Mapping[str, Any]:
    """Of a model that was just read, and of the same one on the card."""
    bench.evict()
    before = _levels(bench, load_whole(models(bench)[0]).model)
    bench.make(TINY, models(bench)[0])
    assert bench.engine._loaded is not None
    values = bench.engine._loaded.models.values
    model = next(values[key] for key in values if key.variant == "unet")
    return {"before": before, "after": _levels(bench, model)}


def _levels(bench: Bench, model: Any) -> tuple[str, list[float]]:
    from hordelib.comfyui.nodes.schedules import noise_levels

    asked: dict[str, Any] = {"sampler_name": "euler", "scheduler": "normal"}
    levels = bench.engine._thread.submit(noise_levels, model, steps=20, **asked).result()
    values: Any = levels
    return str(levels.device), values.tolist()


def out_of_memory_in_a_step(bench: Bench) -> Mapping[str, Any]:
    seen = 0

    def matches(name: str, args: Any) -> bool:
        nonlocal seen
        is_whole_batch = name == "convolution" and args[0].shape[0] >= 8
        seen += is_whole_batch
        return is_whole_batch and seen == 10

    return _with_fault(bench, matches, replace(JOB, images=4, steps=2))


def out_of_memory_while_loading(bench: Bench) -> Mapping[str, Any]:
    bench.evict()
    bench.card.fault = Fault(at("to card", 300), torch.OutOfMemoryError(CUDA_OOM))
    made = bench.make(replace(TINY, seed=5), models(bench)[0])
    return {"images": made.images, "failed": bench.card.has_failed, "left": bench.evict()}


def out_of_memory_without_a_reserve(bench: Bench) -> Mapping[str, Any]:
    """While loading, with a driver that would go on in main memory, were the reserve given up."""
    bench.evict()
    bench.card.fault = Fault(at("to card", 300), torch.OutOfMemoryError(CUDA_OOM))
    with patch("hordelib.comfyui.device._spills", return_value=True):
        try:
            bench.make(replace(TINY, seed=6), models(bench)[0])
        except HordelibError as raised:
            after = bench.make(replace(TINY, seed=6), models(bench)[0])
            return {"raised": type(raised).__name__, "images": after.images, "left": bench.evict()}
    return {"failed": bench.card.has_failed}


def out_of_memory_while_decoding(bench: Bench) -> Mapping[str, Any]:
    def fail_in_the_decoder(done: int, total: int) -> None:
        if done == total:
            bench.card.fault = Fault(at("convolution", 6), torch.OutOfMemoryError(CUDA_OOM))

    made = bench.make(replace(JOB, seed=6), models(bench)[0], fail_in_the_decoder)
    return {"images": made.images, "failed": bench.card.has_failed, "left": bench.evict()}


def decoding_without_room(bench: Bench) -> Mapping[str, Any]:
    """By the estimate, which is cautious, it takes 5.4 GiB."""
    assert bench.engine._loaded is not None
    bench.engine._loaded.models._estimates._corrections.put("stable diffusion 1, decoding", 1.0)
    made = bench.make(replace(JOB, width=1152, height=1152, seed=13), models(bench)[0])
    return {"jobs": [made], "left": bench.evict(), "reserve": bench.reserve_bytes // MIB}


def another_program_in_the_middle(bench: Bench) -> Mapping[str, Any]:
    """It takes 1 GiB while the second of four steps runs, and keeps it for another job."""

    def take(done: int, _total: int) -> None:
        if done == 2:
            bench.card.others_bytes = 1024 * MIB

    path = models(bench)[0]
    made = [bench.make(replace(JOB, steps=4, seed=seed), path, take) for seed in (7, 8)]
    return {"jobs": made, "left": bench.evict(), "reserve": bench.reserve_bytes // MIB}


def flux(bench: Bench) -> Mapping[str, Any]:
    """Two jobs; the second one finds the text encoder's place taken by the UNet."""
    bench.evict()
    model = write_flux(bench.folder / "shallow_flux.safetensors", double=4, single=8)
    jobs = [bench.make(replace(JOB, prompt=f"circle {i}"), model) for i in range(2)]
    return {"jobs": jobs, "left": bench.evict(), "reserve": bench.reserve_bytes // MIB}


def control_hires_and_upscaler(bench: Bench) -> Mapping[str, Any]:
    """A ControlNet in both passes of hires fix, and 4 times as large in the end."""
    net = write_whole_control_net(bench.folder / "control.safetensors")
    upscaler = write_whole_upscaler(bench.folder / "upscaler.safetensors")
    hint = SourceImage.of_pil(Image.new("RGB", (512, 512)))
    job = replace(
        JOB,
        width=768,
        height=768,
        steps=2,
        hires_fix=True,
        control=Control(type=ControlType.canny, image=hint, model=net, image_is_control=True),
        post_processing=(PostProcessor("4x", ProcessorKind.upscaler, upscaler),),
    )
    made = [bench.make(job, models(bench)[0])]
    assert bench.last is not None
    side = bench.last.images[0].width
    return {
        "jobs": made,
        "side": side,
        "left": bench.evict(),
        "reserve": bench.reserve_bytes // MIB,
    }


def turing(bench: Bench, name: str) -> Mapping[str, Any]:
    """A job of a card of capability 7.5, with the types that its parts compute in."""
    card = bench.card
    was = card.name, card.capability
    bench.evict()
    assert bench.engine._loaded is not None
    bench.engine._thread.submit(bench.engine._loaded.cache.clear).result()
    card.name, card.capability = name, (7, 5)
    try:
        made = bench.make(replace(JOB, seed=12), models(bench)[0])
        values = bench.engine._loaded.models.values
        types = {key.variant: value_bytes(Named(value)) for key, value in values.items()}
        return {"jobs": [made], "types": types, "left": bench.evict()}
    finally:
        card.name, card.capability = was
        bench.engine._thread.submit(bench.engine._loaded.models.release).result()
        bench.engine._thread.submit(bench.engine._loaded.cache.clear).result()


@dataclass(frozen=True)
class Named:
    """What value_bytes takes."""

    value: Any


def misnamed(bench: Bench, error: Exception) -> Mapping[str, Any]:
    def matches(name: str, args: Any) -> bool:
        return name == "convolution" and args[0].shape[0] >= 4

    job = replace(JOB, images=2, prompt=str(error))
    bench.card.fault = Fault(matches, error)
    try:
        made = bench.make(job, models(bench)[0])
    except HordelibError as raised:
        return {"raised": type(raised).__name__, "failed": bench.card.has_failed}
    return {"images": made.images, "failed": bench.card.has_failed}


def no_nvml(bench: Bench) -> Mapping[str, Any]:
    from hordelib.memory import cards

    bench.card.has_nvml = False
    cards._card_of.cache_clear()
    return {"jobs": [bench.make(replace(JOB, seed=10), models(bench)[0])]}


def mixed_jobs(bench: Bench, jobs: int) -> Mapping[str, Any]:
    """Sizes, batches, prompts and both models, from one end to the other."""
    allocated: list[float] = []
    sizes = ((512, 512, 1), (768, 512, 1), (512, 512, 3), (64, 64, 4))
    for i in range(jobs):
        width, height, images = sizes[i % len(sizes)]
        job = replace(JOB, width=width, height=height, images=images, prompt=f"number {i}")
        bench.make(job, models(bench)[i // 5 % 2])
        if i % 4 == 3:
            allocated.append(bench.evict())
    return {"left": allocated}


def _with_fault(bench: Bench, matches: Matches, job: Any) -> Mapping[str, Any]:
    bench.card.fault = Fault(matches, torch.OutOfMemoryError(CUDA_OOM))
    made = bench.make(job, models(bench)[0])
    return {"images": made.images, "failed": bench.card.has_failed, "left": bench.evict()}


def main(folder: Path, jobs: int) -> None:
    card = Card(4096 * MIB, has_numbers=False)
    accelerator = getattr(torch, "AcceleratorError", RuntimeError)
    cublas = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    named = {
        "cuda": accelerator("CUDA error: out of memory", 2),
        "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        "cublas": RuntimeError(cublas),
    }
    scenarios: dict[str, Scenario] = {
        each.__name__: each
        for each in (
            two_models_in_turn,
            one_model_again_and_again,
            many_prompts,
            schedules,
            out_of_memory_in_a_step,
            out_of_memory_while_loading,
            out_of_memory_without_a_reserve,
            out_of_memory_while_decoding,
            decoding_without_room,
            another_program_in_the_middle,
            control_hires_and_upscaler,
            flux,
        )
    }
    for name in ("RTX 2060", "GTX 1650"):
        scenarios[name] = partial(turing, name=f"NVIDIA GeForce {name}")
    scenarios |= {name: partial(misnamed, error=error) for name, error in named.items()}
    scenarios |= {"no_nvml": no_nvml, "mixed_jobs": partial(mixed_jobs, jobs=jobs)}
    tell(Bench(card, folder), scenarios)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

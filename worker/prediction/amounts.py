"""What there is to do in a job, as amounts that each cost their time.

A job's seconds are near to a sum: each amount times what one of it costs on this machine. All
amounts are at least 0, and 0 where the job has none of that kind. Units are chosen so that 1 is an
ordinary amount: pixels count in pictures of 512 x 512.

Left out is what changes no time: the seed, and the scheduler, which only spaces the steps. The
models of a family have one architecture, so they take the same time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from math import ceil
from operator import mul

from hordelib.graphs.stages.hires import has_two_passes, second_denoise, start_size
from hordelib.job.families import Family
from hordelib.job.fitting import prompts_a_run
from hordelib.job.hires import second_pass_steps
from hordelib.job.params import FromImage, GenerationParams, Inpaint, PostProcessor, Remix
from hordelib.job.post_processors import POST_PROCESSORS
from hordelib.job.prompts import LONGEST_PROMPT
from hordelib.job.samplers import ADAPTIVE, StepNoise, most_iterations

PICTURE = 512 * 512  # pixels
CHUNK_TOKENS = 75
ADAPTIVE_CALLS = 40  # dpm_adaptive chooses its steps itself; the server reckons with as many

_LATE_PROMPTS = 100  # whose chunks are remembered: a job's work is asked for several times
_TOKENS = re.compile(r"\w+|[^\w\s]")

Amounts = Mapping[str, float]


def amounts_of(params: GenerationParams, family: Family) -> Amounts:
    """The amounts of the job by their names."""
    around = dict(_control_map(params)) | dict(_post_processing(params))
    if params.return_control_map:  # which samples nothing, so that it says nothing of other jobs
        return {"map job": 1.0} | around
    work = {"job": 1.0, "images": float(params.images)}
    return work | _sampling(params, family) | _text(params) | _pixels(params) | around


def calls(params: GenerationParams, steps: int) -> int:
    """How often the job's sampler runs the network for so many steps.

    The last one goes straight to the picture.
    """
    sampler = params.sampler
    if sampler == ADAPTIVE:
        order = params.sampler_options.order or sampler.evaluations
        return min(ADAPTIVE_CALLS, order * most_iterations(steps))
    return sampler.evaluations * (steps - 1) + 1


def _sampling(params: GenerationParams, family: Family) -> dict[str, float]:
    """Of all passes together. `area`: pictures that go through the network, of all its calls."""
    runs = calls_area = attention = cross = steps = 0.0
    prompts = prompts_a_run(params, family)
    wide = max(_chunks(params.prompt), _chunks(params.negative_prompt))
    for pixels, pass_steps in _passes(params, family):
        pass_calls = calls(params, pass_steps)
        area = pass_calls * prompts * params.images * pixels / PICTURE
        steps += pass_steps
        runs += pass_calls
        calls_area += area
        attention += area * pixels / PICTURE
        cross += area * wide
    work = {"steps": steps, "calls": runs, "area": calls_area, "attention": attention}
    work |= {"prompt area": cross}
    if params.control is not None:
        work |= {"control calls": runs, "control area": calls_area}
    noise = params.sampler.step_noise
    if noise is not StepNoise.none and (noise is not StepNoise.churn or _churns(params)):
        work[f"{noise.name} noise"] = steps * params.images
    if not params.sampler.batches:
        work[f"{params.sampler.name} area"] = calls_area
    return work


def _churns(params: GenerationParams) -> bool:
    return bool(params.sampler_options.s_churn)


def _passes(params: GenerationParams, family: Family) -> Iterator[tuple[int, int]]:
    """Pixels and steps of each pass."""
    native = family.native_side
    width, height = start_size(params, native)
    yield width * height, params.steps
    if has_two_passes(params, native):
        width, height, denoise = params.width, params.height, second_denoise(params)
        yield width * height, second_pass_steps(width, height, params.steps, denoise, native)


def _text(params: GenerationParams) -> dict[str, float]:
    """Negative prompts repeat, and are seldom encoded again. Several LoRAs change weights once.

    The same text twice is encoded once: so are negative prompts that nothing reads.
    """
    prompts = params.prompt, params.negative_prompt
    is_one = params.prompt == params.negative_prompt
    return {
        "chunks": float(_chunks(params.prompt)),
        "negative chunks": 0.0 if is_one else float(_chunks(params.negative_prompt)),
        "tis": float(sum(prompt.count("embedding:") for prompt in prompts)),
        "with LoRAs": 1.0 if params.loras else 0.0,
        "loras": float(len(params.loras)),
    }


@lru_cache(_LATE_PROMPTS)
def _chunks(prompt: str) -> int:
    """About how many chunks of tokens a prompt has: at least one."""
    tokens = sum(1 for _ in _TOKENS.finditer(prompt[:LONGEST_PROMPT]))
    return max(1, ceil(tokens / CHUNK_TOKENS))


def _pixels(params: GenerationParams) -> dict[str, float]:
    """What is decoded of all images, and encoded of the sources."""
    pixels = params.width * params.height / PICTURE
    match params.source:
        case FromImage() | Inpaint():
            encoded = pixels
        case Remix(images):
            encoded = float(len(images))
        case _:
            encoded = 0.0
    work = {"decoded": pixels * params.images, "encoded": encoded}
    return work if params.transparent is None else {**work, "uncovered": work["decoded"]}


def _control_map(params: GenerationParams) -> Iterator[tuple[str, float]]:
    control = params.control
    if control is not None and not control.image_is_control:
        yield f"map {control.type}", params.width * params.height / PICTURE


def _post_processing(params: GenerationParams) -> Iterator[tuple[str, float]]:
    """Each post-processor works on what the ones before have made."""
    scales = [_scale(processor) for processor in params.post_processing]
    pixels = params.images * params.width * params.height / PICTURE
    sizes = accumulate((scale**2 for scale in scales), mul, initial=pixels)
    for processor, size in zip(params.post_processing, sizes, strict=False):
        yield f"post {processor.name}", size


def _scale(processor: PostProcessor) -> int:
    """How many times longer it makes each side; upscalers that the horde has no name for: 4."""
    row = POST_PROCESSORS.get(processor.name)
    return row.scale if row else 4

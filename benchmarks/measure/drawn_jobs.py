"""Jobs drawn by chance, of many kinds, none of which takes long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from hordelib.demo_model.shapes import COLOURS, SHAPES, Scene, draw
from hordelib.job.control_types import ControlType
from hordelib.job.images import SourceImage
from hordelib.job.params import SIDE_STEP, Control, FromImage, GenerationParams, Lora, TextOnly
from hordelib.job.samplers import SAMPLERS, Scheduler

STEPS = (4, 8, 10, 15, 20, 25, 30)
IMAGES = (1, 1, 1, 1, 2, 2, 3, 4)
LENGTHS = (1, 1, 2, 4, 8, 20, 32)  # of a prompt, in sentences of some 12 tokens
NEGATIVES = ("", "", "blurry", "text, watermark, a frame around the picture")
MOST_STEPS = 40  # of pictures half as long as the largest: what one job is to take at most


@dataclass(frozen=True, slots=True)
class Kinds:
    """What the jobs may be: sides up to `largest` pixels, and the adapters that fit the model."""

    largest: int
    lora: Path | None = None
    control_net: Path | None = None


def draw_jobs(count: int, seed: int, kinds: Kinds) -> list[GenerationParams]:
    """The same ones for the same `seed`. No two have one prompt, or one negative prompt but ""."""
    random = Random(seed)
    most = kinds.largest**2 // 4 * MOST_STEPS
    jobs: list[GenerationParams] = []
    while len(jobs) < count:
        job = _draw(random, len(jobs), kinds)
        if job.width * job.height * job.images * job.steps <= most:
            jobs.append(job)
    return jobs


def _draw(random: Random, number: int, kinds: Kinds) -> GenerationParams:
    is_from_image = random.random() < 0.2
    return GenerationParams(
        prompt=_prompt(random, number),
        negative_prompt=_negative(random, number),
        width=_side(random, kinds.largest),
        height=_side(random, kinds.largest),
        seed=number,
        images=random.choice(IMAGES),
        steps=random.choice(STEPS),
        cfg=random.choice((1.0, 5.0, 7.0, 7.5)),
        sampler=random.choice([row for row in SAMPLERS.values() if row.batches]),
        scheduler=random.choice((Scheduler.normal, Scheduler.karras)),
        source=FromImage(_picture(random)) if is_from_image else TextOnly(),
        denoise=random.choice((0.4, 0.6, 0.8)) if is_from_image else 1.0,
        loras=_loras(random, kinds.lora) if kinds.lora else (),
        control=_control(random, kinds.control_net) if kinds.control_net else None,
    )


def _side(random: Random, largest: int) -> int:
    quarters = random.choice((1, 1, 2, 2, 2, 3, 4))
    return max(SIDE_STEP, largest * quarters // 4 // SIDE_STEP * SIDE_STEP)


def _prompt(random: Random, number: int) -> str:
    sentences = (
        f"a {random.choice(tuple(COLOURS))} {random.choice(SHAPES)} on a plain background, "
        for _ in range(random.choice(LENGTHS))
    )
    return f"number {number}, {''.join(sentences)}"


def _negative(random: Random, number: int) -> str:
    words = random.choice(NEGATIVES)
    return words and f"number {number}, {words}"


def _picture(random: Random) -> SourceImage:
    return SourceImage.of_pil(draw(Scene(random.choice(SHAPES), "red", "blue"), 128))


def _loras(random: Random, file: Path) -> tuple[Lora, ...]:
    count = random.choice((0, 0, 0, 1, 1, 2))
    strengths = (random.choice((0.5, 0.8, 1.0)) for _ in range(count))
    return tuple(Lora(file.stem, file, each, each) for each in strengths)


def _control(random: Random, file: Path) -> Control | None:
    if random.random() > 0.15:
        return None
    return Control(type=ControlType.canny, image=_picture(random), model=file)

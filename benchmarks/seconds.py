"""How well a job's seconds are predicted on this machine, on jobs that were not learnt.

Random jobs of all that the demo model can do run on the engine. The predictor learns from the first
ones; each of the others is predicted before it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from hordelib.control_types import ControlType
from hordelib.demo_model import ensure_control_net, ensure_lora
from hordelib.images import SourceImage
from hordelib.params import Control, FromImage, GenerationParams, Lora, TextOnly
from hordelib.samplers import SAMPLERS, Scheduler

SIDES = (64, 128, 192, 256)
MOST_PIXELS = 256 * 256  # of all images of a job
STEPS = (2, 3, 4, 6, 8, 10, 15, 20)
HIRES_SIDES = (576, 640)


@dataclass(frozen=True, slots=True)
class Draw:
    """Random jobs of all features, from a seed: the same ones each time."""

    random: Random
    lora: Path
    control_net: Path

    def job(self, number: int) -> GenerationParams:
        """`number` makes its prompt one of its own."""
        return self._hires(number) if self._one_in(40) else self._small(number)

    def _small(self, number: int) -> GenerationParams:
        random = self.random
        width, height = random.choice(SIDES), random.choice(SIDES)
        images = random.randint(1, max(1, min(6, MOST_PIXELS // (width * height))))
        from_image = self._one_in(5)
        return GenerationParams(
            prompt=self._prompt(number),
            negative_prompt=self._prompt(-number) if self._one_in(2) else "",
            width=width,
            height=height,
            images=images,
            seed=number,
            steps=random.choice(STEPS),
            cfg=random.choice((1.0, 5.0, 7.5)),
            sampler=random.choice(list(SAMPLERS.values())),
            scheduler=random.choice((Scheduler.normal, Scheduler.karras, Scheduler.simple)),
            source=FromImage(_noise(random, width, height)) if from_image else TextOnly(),
            denoise=random.choice((0.4, 0.7)) if from_image else 1.0,
            loras=(Lora("demo", self.lora),) if self._one_in(4) else (),
            control=self._control(width, height) if self._one_in(4) else None,
        )

    def _hires(self, number: int) -> GenerationParams:
        return GenerationParams(
            prompt=self._prompt(number),
            width=self.random.choice(HIRES_SIDES),
            height=HIRES_SIDES[0],
            seed=number,
            steps=self.random.randint(2, 3),
            sampler=SAMPLERS["k_euler"],
            hires_fix=True,
        )

    def _control(self, width: int, height: int) -> Control:
        return Control(
            type=self.random.choice((ControlType.canny, ControlType.scribble)),
            image=_noise(self.random, width, height),
            model=self.control_net,
            image_is_control=self._one_in(3),
        )

    def _prompt(self, number: int) -> str:
        """Of one to four chunks of 75 tokens."""
        words = self.random.choice((3, 10, 60, 120, 250))
        return f"{number} " + " ".join(self.random.choices(("red", "blue", "circle"), k=words))

    def _one_in(self, many: int) -> bool:
        return self.random.randrange(many) == 0


def draw(models: Path, seed: int) -> Draw:
    """Writes the demo's LoRA and ControlNet where they are not there yet."""
    return Draw(Random(seed), ensure_lora(models), ensure_control_net(models))


def _noise(random: Random, width: int, height: int) -> SourceImage:
    pixels = random.randbytes(3 * 16 * 16)
    return SourceImage.of_pil(Image.frombytes("RGB", (16, 16), pixels).resize((width, height)))

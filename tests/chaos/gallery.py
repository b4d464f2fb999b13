"""Pictures that real ComfyUI makes of a few prompts and seeds, and what clients ask of them."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from hordelib import Engine, GenerationParams
from hordelib.job.samplers import SAMPLERS
from tests.chaos.orders import Order
from tests.support.looks import Pixels, pixels
from tests.support.sandbox_client import MODEL
from worker.sandbox import GenerationEntry, RequestEntry

PROMPTS = (
    "a red circle on a blue background",
    "a yellow star on a purple background",
    "a green heart on a white background",
    "a white cross on a green background",
)
SEEDS = range(10, 14)
MOST_IMAGES = 2
SIDE, STEPS, CFG = 64, 2, 1.0
# Image i of a batch is the one of seed + i but for 2 of 255 (rounding), which WebP may widen.
TOLERANCE = 1.0  # the mean over all channels of all pixels; others are three times as far


def real_order(draw: random.Random) -> Order:
    images = draw.randint(1, MOST_IMAGES)
    return Order(
        prompt=draw.choice(PROMPTS),
        models=(MODEL,),
        images=images,
        params={
            "width": SIDE,
            "height": SIDE,
            "steps": STEPS,
            "cfg_scale": CFG,
            "sampler_name": "k_euler",
            "karras": False,
            "seed": str(draw.choice(SEEDS[: 1 - MOST_IMAGES])),
        },
    )


@dataclass(frozen=True, slots=True)
class Gallery:
    """The files of all pictures that can be asked for, by prompt and seed, each made alone."""

    webps: Mapping[tuple[str, int], bytes]

    @classmethod
    def painted_by(cls, engine: Engine, checkpoint: Path) -> Self:
        return cls(
            {
                (prompt, seed): engine.generate(_params(prompt, seed), checkpoint)
                .images[0]
                .to_webp()
                for prompt, seed in product(PROMPTS, SEEDS)
            }
        )

    def complaint(self, row: GenerationEntry, request: RequestEntry, webp: bytes | None) -> str:
        """What is wrong with a delivered picture; "" for nothing.

        It has to be its own expected one, or nearly, and nearer to it than to any other.
        """
        own = (request.body.prompt, row.asked_seed)
        if webp == self.webps[own]:
            return ""
        if webp is None:
            return "there is no picture"
        distances = {key: _distance(webp, other) for key, other in self.webps.items()}
        nearest = min(distances, key=lambda key: distances[key])
        if nearest != own or distances[own] > TOLERANCE:
            return f"{own}: {distances[own]:.1f} away, nearest to {nearest}"
        return ""


def _params(prompt: str, seed: int) -> GenerationParams:
    return GenerationParams(
        prompt=prompt,
        width=SIDE,
        height=SIDE,
        seed=seed,
        steps=STEPS,
        cfg=CFG,
        sampler=SAMPLERS["k_euler"],
    )


def _distance(one: bytes, other: bytes) -> float:
    return float(np.abs(_pixels(one) - _pixels(other)).mean())


def _pixels(webp: bytes) -> Pixels:
    with Image.open(io.BytesIO(webp)) as image:
        return pixels(image)

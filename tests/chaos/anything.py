"""Orders of everything that the horde hands out for Stable Diffusion 1 at gate 18, at random.

The files are the demo's: what needs the weights of somebody else can't be asked for.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args

from PIL import Image

from hordelib.demo_model import EMBEDDING_FILE_NAME, LORA_FILE_NAME
from hordelib.demo_model.shapes import Scene
from hordelib.demo_model.shapes import draw as draw_scene
from hordelib.job.control_types import CONTROL_TYPES, ControlType
from tests.chaos.gallery import PROMPTS, SIDE
from tests.chaos.orders import Order
from worker.demo.model_files import UPSCALER
from worker.demo.sample_requests import INPAINTING_MODEL, MODEL, PIX2PIX_MODEL
from worker.sandbox.rules.sampling import LIMITS, SOLVER_TYPES
from worker.sandbox.wire import Sampler, Scheduler

T = TypeVar("T")
Params = Mapping[str, object]
SAMPLERS: Sequence[str] = get_args(Sampler)
SCHEDULES: Sequence[str] = get_args(Scheduler)
MOST_STEPS, MOST_IMAGES = 3, 3
BEYOND_ALL_NOISE = 1000.0  # drawn where an option has no upper limit
REFUSED = ("dpmpp_3m_sde", "normal")  # together
SIDES = (SIDE, 2 * SIDE)
SWITCH = (True, False)


Extra = tuple[Params, Params]
"""Parameters, and other keys of the request."""


@dataclass
class Anything:
    """Each sampler, each schedule and each kind of job comes once before any comes again."""

    draw: random.Random
    _samplers: Iterator[str] = field(init=False)
    _schedules: Iterator[str] = field(init=False)
    _kinds: Iterator[Callable[[random.Random], Extra]] = field(init=False)

    def __post_init__(self) -> None:
        self._samplers = _in_turns(self.draw, SAMPLERS)
        self._schedules = _in_turns(self.draw, SCHEDULES)
        self._kinds = _in_turns(self.draw, KINDS)

    def order(self) -> Order:
        draw, sampler = self.draw, next(self._samplers)
        params, more = next(self._kinds)(draw)
        strength = {"denoising_strength": draw.choice((0.01, 0.6, 1.0))}
        return Order(
            prompt=f"{draw.choice(PROMPTS)}{draw.choice(('', ' ### blurry'))}",
            models=(MODEL,),
            images=draw.randint(1, MOST_IMAGES),
            params={
                "width": draw.choice(SIDES),
                "height": draw.choice(SIDES),
                "steps": draw.randint(1, MOST_STEPS),
                "cfg_scale": draw.choice((1.0, 1.5, 7.0)),
                "sampler_name": sampler,
                "seed": str(draw.getrandbits(32)),
                "tiling": draw.choice(SWITCH),
                "hires_fix": draw.choice(SWITCH),
                "clip_skip": draw.randint(1, 3),
                **(strength if draw.choice(SWITCH) else {}),
                **self._schedule(sampler),
                **_options(draw, sampler),
                **params,
            },
            more=more,
        )

    def _schedule(self, sampler: str) -> Params:
        """`karras` alone, as older clients ask, or a schedule that wins over it."""
        if self.draw.random() < 0.2:
            return {"karras": sampler == REFUSED[0] or self.draw.choice(SWITCH)}
        schedule = next(self._schedules)
        if (sampler, schedule) == REFUSED:
            schedule = next(self._schedules)
        return {"scheduler": schedule, "karras": self.draw.choice(SWITCH)}


def _in_turns(draw: random.Random, values: Sequence[T]) -> Iterator[T]:
    while True:
        yield from draw.sample(values, len(values))


def _options(draw: random.Random, sampler: str) -> Params:
    """Some of those that the horde accepts with the sampler: at an edge, or between."""
    drawn: dict[str, object] = {}
    for name, (low, high) in LIMITS.get(sampler, {}).items():
        most = BEYOND_ALL_NOISE if math.isinf(high) else high
        number = draw.choice((low, most, draw.uniform(low, most), 0.5))
        drawn[f"sampler_{name}"] = number if name != "order" else draw.randint(int(low), int(most))
    if sampler in SOLVER_TYPES:
        drawn["sampler_solver_type"] = draw.choice(sorted(SOLVER_TYPES[sampler]))
    return {key: value for key, value in drawn.items() if draw.choice(SWITCH)}


# ---- kinds of jobs ---------------------------------------------------------------------------


def _base64(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _source(draw: random.Random, side: int = SIDE) -> Params:
    scene = Scene(draw.choice(("star", "circle", "square")), "yellow", "purple")
    return {"source_image": _base64(draw_scene(scene, side))}


def _text_to_image(_: random.Random) -> Extra:
    return {}, {}


def _image_to_image(draw: random.Random) -> Extra:
    return {}, _source(draw)


def _inpainting(draw: random.Random) -> Extra:
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (SIDE // 2, 0, SIDE, SIDE))
    more = {"source_processing": "inpainting", "source_mask": _base64(mask)}
    return {}, {**_source(draw), **more, "models": [draw.choice((MODEL, INPAINTING_MODEL))]}


def _outpainting(draw: random.Random) -> Extra:
    canvas = Image.new("RGBA", (2 * SIDE, SIDE))
    canvas.paste(draw_scene(Scene("star", "yellow", "purple"), SIDE), (SIDE // 2, 0))
    return {}, {"source_processing": "outpainting", "source_image": _base64(canvas)}


def _instruction(draw: random.Random) -> Extra:
    return {}, {**_source(draw), "models": [PIX2PIX_MODEL]}


def _control_net(draw: random.Random) -> Extra:
    params = {
        "control_type": draw.choice(("canny", "scribble")),
        "control_strength": draw.choice((0.01, 0.5, 1.0, 3.0)),
        "image_is_control": draw.choice(SWITCH),
    }
    return {**params, "hires_fix": False}, _source(draw, 2 * SIDE)


def _control_map(draw: random.Random) -> Extra:
    control = draw.choice([each for each in ControlType if not CONTROL_TYPES[each].weights])
    params = {"control_type": str(control), "return_control_map": True, "hires_fix": False}
    return params, _source(draw, 2 * SIDE)


def _lora(draw: random.Random) -> Extra:
    lora = {
        "name": Path(LORA_FILE_NAME).stem,
        "model": draw.choice((-1.0, 0.5, 1.0)),
        "clip": draw.choice((0.0, 1.0)),
    }
    return {"loras": [lora]}, {}


def _textual_inversion(draw: random.Random) -> Extra:
    place = draw.choice(("prompt", "negprompt"))
    inversion = {"name": Path(EMBEDDING_FILE_NAME).stem, "inject_ti": place, "strength": 0.8}
    return {"tis": [inversion]}, {}


def _upscaled(_: random.Random) -> Extra:
    return {"post_processing": [UPSCALER], "width": SIDE, "height": SIDE}, {}


def _qr_code(draw: random.Random) -> Extra:
    texts = [{"reference": "qr_code", "text": draw.choice(("AI", "42"))}]
    side = {"width": 3 * SIDE, "height": 3 * SIDE, "hires_fix": False}
    return {"workflow": "qr_code", "extra_texts": texts, **side}, {}


def _transparent(_: random.Random) -> Extra:
    return {"transparent": True}, {}


KINDS: Sequence[Callable[[random.Random], Extra]] = (
    *(_text_to_image,) * 4,
    *(_image_to_image,) * 2,
    _inpainting,
    _outpainting,
    _instruction,
    _control_net,
    _control_map,
    _lora,
    _textual_inversion,
    _upscaled,
    _qr_code,
    _transparent,
)

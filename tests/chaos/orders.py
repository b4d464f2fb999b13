"""What the clients ask for: bodies of generate/async, drawn from a generator."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from PIL import Image

from tests.chaos.stand_in import IMPOSSIBLE, NAKED

NOUNS = ("circle", "star", "heart", "cross", "ring", "tree", "house", "river")
SAMPLERS = ("k_euler", "k_euler_a", "k_dpmpp_2m", "k_heun")
SIZES = (64, 128)
UNREADABLE_SEED = "9" * 120  # more digits than the worker reads


@dataclass(frozen=True, slots=True)
class Order:
    """One request for `images` pictures. `params` and `more` are the API's own keys."""

    path: ClassVar[str] = "generate"
    prompt: str
    models: tuple[str, ...]
    images: int
    params: Mapping[str, object]
    more: Mapping[str, object] = field(default_factory=dict[str, object])

    def body(self) -> dict[str, object]:
        params = {**self.params, "n": self.images}
        return {"prompt": self.prompt, "models": list(self.models), "params": params, **self.more}


Drawn = Callable[[random.Random, tuple[str, ...]], Order]


def _plain(draw: random.Random, models: tuple[str, ...]) -> Order:
    number, words = str(draw.getrandbits(32)), f"the seed {draw.getrandbits(32)}"
    return Order(
        prompt=f"a {draw.choice(NOUNS)} {draw.getrandbits(20)} ### {draw.choice(NOUNS)}",
        models=(draw.choice(models),),
        images=draw.choice((1, 1, 1, 2, 3, 4)),
        params={
            "width": draw.choice(SIZES),
            "height": draw.choice(SIZES),
            "steps": draw.randint(1, 8),
            "cfg_scale": draw.randint(2, 20) / 2,
            "sampler_name": draw.choice(SAMPLERS),
            "karras": draw.random() < 0.5,
            "seed": draw.choice((number, words)),
        },
    )


def _seedless(draw: random.Random, models: tuple[str, ...]) -> Order:
    order = _plain(draw, models)
    return replace(order, params={k: value for k, value in order.params.items() if k != "seed"})


def _of_any_model(draw: random.Random, models: tuple[str, ...]) -> Order:
    return replace(_plain(draw, models), models=models)


def _from_a_picture(draw: random.Random, models: tuple[str, ...]) -> Order:
    file = io.BytesIO()
    colour = (draw.getrandbits(8), draw.getrandbits(8), draw.getrandbits(8))
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    order = _plain(draw, models)
    return replace(
        order,
        params={**order.params, "denoising_strength": 0.6},
        more={"source_image": base64.b64encode(file.getvalue()).decode()},
    )


def _to_be_censored(draw: random.Random, models: tuple[str, ...]) -> Order:
    order = _plain(draw, models)
    return replace(order, prompt=f"{NAKED} {order.prompt}", more={"censor_nsfw": True})


def _not_safe_for_work(draw: random.Random, models: tuple[str, ...]) -> Order:
    order = _plain(draw, models)
    return replace(order, prompt=f"{NAKED} {order.prompt}", more={"nsfw": True})


def _impossible(draw: random.Random, models: tuple[str, ...]) -> Order:
    order = _plain(draw, models)
    return replace(order, prompt=f"{IMPOSSIBLE} {order.prompt}")


def _unreadable(draw: random.Random, models: tuple[str, ...]) -> Order:
    order = _plain(draw, models)
    return replace(order, params={**order.params, "seed": UNREADABLE_SEED})


# How many of a hundred orders are of a kind.
KINDS: Mapping[Drawn, int] = {
    _plain: 70,
    _seedless: 6,
    _of_any_model: 5,
    _from_a_picture: 8,
    _to_be_censored: 4,
    _not_safe_for_work: 3,
    _impossible: 2,
    _unreadable: 2,
}


def order(draw: random.Random, models: tuple[str, ...]) -> Order:
    (kind,) = draw.choices(tuple(KINDS), tuple(KINDS.values()))
    return kind(draw, models)

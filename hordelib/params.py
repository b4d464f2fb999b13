"""What to generate, checked once. Nothing past this module sees a raw payload."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from hordelib.errors import InvalidParams, NotServed
from hordelib.samplers import SAMPLERS, Sampler, Scheduler, find_sampler

Payload = Mapping[str, Any]

SEEDS = 1 << 64  # ComfyUI's and torch's seeds are unsigned 64-bit numbers
MAX_SEED_DIGITS = 100
SIDE_STEP, MAX_SIDE = 64, 3072


def random_seed() -> int:
    """A seed nobody asked for: 32 bits, as the horde draws them."""
    return random.SystemRandom().randrange(1 << 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """One job: a batch of `images` pictures of one prompt. Frozen, and checked when it is made.

    Raises InvalidParams, which names the field, where a value is outside the horde's own limits
    (its swagger's ModelPayloadStyleStable).
    """

    prompt: str
    negative_prompt: str = ""
    width: int = 512  # pixels
    height: int = 512
    seed: int = field(default_factory=random_seed)
    images: int = 1
    steps: int = 30
    cfg: float = 5.0
    sampler: Sampler = SAMPLERS["k_euler_a"]
    scheduler: Scheduler = Scheduler.normal
    clip_skip: int = 1  # 1 = the text encoder's output as the model was trained on it
    hires_fix: bool = False  # two passes, where the size is larger than the model's own
    hires_denoise: float = 0.65  # of the second pass

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in _LIMITS.items():
            if not is_valid(getattr(self, name)):
                raise InvalidParams(name, getattr(self, name), expected)

    def image_seed(self, index: int) -> int:
        """Seed of image `index` of the batch; alone, that seed gives the same picture."""
        return (self.seed + index) % SEEDS

    @classmethod
    def from_payload(cls, payload: Payload) -> Self:
        """Read a popped job's `payload` (horde API, /v2/generate/pop); absent keys get defaults.

        Raises InvalidParams for a value of the wrong type or out of range, and NotServed for a key
        that asks for another kind of job.
        """
        for key in UNSERVED:
            if payload.get(key):
                raise NotServed(key)
        values: dict[str, Any] = {}
        for key, (name, read) in _PAYLOAD_KEYS.items():
            if payload.get(key) is not None:
                values[name] = read(key, payload[key])
        values["prompt"], values["negative_prompt"] = split_prompt(values.get("prompt", ""))
        return cls(**values)


def split_prompt(text: str) -> tuple[str, str]:
    """Positive and negative prompt: the horde writes the negative one after the first `###`."""
    positive, _, negative = text.partition("###")
    return positive.strip(), negative.strip()


UNSERVED = (
    "source_image",
    "control_type",
    "return_control_map",
    "loras",
    "tis",
    "post_processing",
    "tiling",
    "transparent",
    "workflow",
    "extra_texts",
)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidParams(key, value, "a text")
    return value


def _integer(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidParams(key, value, "a whole number")
    return value


HUGE = 1e9  # beyond every limit: JSON's integers have no end, and float's do


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParams(key, value, "a number")
    return float(max(min(value, HUGE), -HUGE))


def _seed(key: str, value: object) -> int:
    """The server sends digits in a text; larger numbers than ComfyUI takes wrap around."""
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or len(text) > MAX_SEED_DIGITS:
        raise InvalidParams(key, text[:40], f"at most {MAX_SEED_DIGITS} digits")
    return int(text) % SEEDS


def _sampler(key: str, value: object) -> Sampler:
    sampler = find_sampler(_text(key, value))
    if sampler is None:
        raise InvalidParams(key, value, "one of " + ", ".join(SAMPLERS))
    return sampler


def _yes_no(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(key, value, "true or false")
    return value


def _karras(key: str, value: object) -> Scheduler:
    return Scheduler.karras if _yes_no(key, value) else Scheduler.normal


_PAYLOAD_KEYS: dict[str, tuple[str, Callable[[str, object], object]]] = {
    "prompt": ("prompt", _text),
    "width": ("width", _integer),
    "height": ("height", _integer),
    "seed": ("seed", _seed),
    "n_iter": ("images", _integer),
    "ddim_steps": ("steps", _integer),
    "cfg_scale": ("cfg", _number),
    "sampler_name": ("sampler", _sampler),
    "karras": ("scheduler", _karras),
    "clip_skip": ("clip_skip", _integer),
    "hires_fix": ("hires_fix", _yes_no),
    "hires_fix_denoising_strength": ("hires_denoise", _number),
}

_Limit = tuple[Callable[[float], bool], str]


def _between(low: float, high: float) -> _Limit:
    return lambda value: low <= value <= high, f"{low:g} to {high:g}"


_SIDE: _Limit = (
    lambda pixels: pixels % SIDE_STEP == 0 and SIDE_STEP <= pixels <= MAX_SIDE,
    f"a multiple of {SIDE_STEP} from {SIDE_STEP} to {MAX_SIDE}",
)
_LIMITS: dict[str, _Limit] = {
    "width": _SIDE,
    "height": _SIDE,
    "seed": (lambda seed: 0 <= seed < SEEDS, "0 to 2^64 - 1"),
    "images": _between(1, 20),
    "steps": _between(1, 500),
    "cfg": _between(0, 100),
    "clip_skip": _between(1, 12),
    "hires_denoise": _between(0.01, 1),
}

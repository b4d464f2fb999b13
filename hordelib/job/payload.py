"""A popped job's payload, read once. Nothing past this module sees a raw one.

The horde's server has checked what its API knows; the rest is checked here. A value that can't be
served as asked, but nearly, is changed and the change disclosed in a note. `null` means absent, for
the payload's keys, for entries of its lists and for the keys of those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from hordelib.errors import InvalidParams, NotServed, shown
from hordelib.job.control_types import ControlType
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import SEEDS, GenerationParams, between
from hordelib.job.prompts import LONGEST_PROMPT
from hordelib.job.samplers import (
    OPTION_NAMES,
    Option,
    Sampler,
    SamplerOptions,
    Scheduler,
    find_sampler,
    nearest_sampler,
)
from hordelib.texts import harmless

Payload = Mapping[str, Any]
Entry = TypeVar("Entry")

MAX_SEED_DIGITS = 100
MAX_LORAS = 5  # the server refuses requests with more
MAX_TIS = 20
MAX_NAME = 255
WORKFLOWS = ("auto_detect", "qr_code")
TiPlace = Literal["prompt", "negprompt", ""]
TI_PLACES: Mapping[str, TiPlace] = {"prompt": "prompt", "negprompt": "negprompt", "": ""}


@dataclass(frozen=True, slots=True)
class LoraRequest:
    """A LoRA by CivitAI's id or by name; `is_version` says that the name is a version's id."""

    name: str
    model: float = 1.0
    clip: float = 1.0
    inject_trigger: str = ""
    is_version: bool = False


@dataclass(frozen=True, slots=True)
class TiRequest:
    """A textual inversion, and which prompt it is written into; "" leaves that to the client."""

    name: str
    inject_ti: TiPlace = ""
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """What the source picture controls, and how strongly."""

    type: ControlType
    strength: float = 1.0
    image_is_control: bool = False
    return_control_map: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What a payload asks for, checked. What it names is still to be fetched.

    `params` is complete but for that. `extra_texts` has (reference, text) pairs of the workflow.
    """

    params: GenerationParams
    loras: tuple[LoraRequest, ...] = ()
    tis: tuple[TiRequest, ...] = ()
    control: ControlRequest | None = None
    control_strength: float = 1.0  # of what the workflow steers with, too
    post_processing: tuple[str, ...] = ()
    workflow: str = ""
    extra_texts: tuple[tuple[str, str], ...] = ()
    transparent: bool = False
    use_nsfw_censor: bool = False
    notes: tuple[GenMetadata, ...] = ()


def read_payload(payload: Payload, *, images: int = 1) -> JobRequest:
    """Read the `payload` of a pop (horde API, /v2/generate/pop) for a batch of `images`.

    Absent keys get the horde's defaults. Raises InvalidParams for a value of the wrong type or out
    of range, and NotServed for a workflow that nobody knows. A prompt is cut at LONGEST_PROMPT
    characters, positive and negative each, before anything else reads it.
    """
    payload = _given(payload)
    values = {
        name: read(key, payload[key]) for key, (name, read) in _PARAMS.items() if key in payload
    }
    written = _prompt("prompt", payload.get("prompt", ""))
    (positive, negative), cut_notes = _bounded(split_prompt(written))
    sampler, sampler_notes = _sampler(payload)
    scheduler, scheduler_notes = _scheduler(payload)
    options, option_notes = _sampler_options(payload, sampler)
    flow_shift, shift_notes = _flow_shift(payload)
    values |= {"sampler": sampler, "scheduler": scheduler}
    values |= {"sampler_options": options, "flow_shift": flow_shift}
    return JobRequest(
        params=GenerationParams(prompt=positive, negative_prompt=negative, images=images, **values),
        loras=_each(payload, "loras", _lora, MAX_LORAS),
        tis=_each(payload, "tis", _ti, MAX_TIS),
        control=_control(payload),
        control_strength=_control_strength(payload),
        post_processing=_names(payload, "post_processing"),
        workflow=_workflow(payload),
        extra_texts=_each(payload, "extra_texts", _extra_text, MAX_TIS),
        transparent=_switch(payload, "transparent"),
        use_nsfw_censor=_switch(payload, "use_nsfw_censor"),
        notes=(*cut_notes, *sampler_notes, *scheduler_notes, *option_notes, *shift_notes),
    )


def split_prompt(text: str) -> tuple[str, str]:
    """Positive and negative prompt: the horde writes the negative one after the first `###`."""
    positive, _, negative = text.partition("###")
    return positive.strip(), negative.strip()


def _bounded(prompts: tuple[str, str]) -> tuple[tuple[str, ...], tuple[GenMetadata, ...]]:
    """Both prompts within LONGEST_PROMPT, and a note for each that was longer."""
    notes = tuple(
        changed(f"a prompt of {len(text)} characters was cut after {LONGEST_PROMPT}")
        for text in prompts
        if len(text) > LONGEST_PROMPT
    )
    return tuple(text[:LONGEST_PROMPT] for text in prompts), notes


def changed(told: str) -> GenMetadata:
    """The note that something is served otherwise than asked for."""
    return GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told)


# ---- single values ---------------------------------------------------------------------------


# C0 and C1 control characters but for the line break; tabs and all others become spaces.
_CONTROL = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\n")}


def _prompt(key: str, value: object) -> str:
    """Any text with its line breaks, joiners and other invisible letters, which are tokens too.

    Control characters become spaces, lone surrogates question marks.
    """
    if not isinstance(value, str):
        raise InvalidParams(key, value, "a text")
    whole = value.encode("utf-8", "replace").decode("utf-8")
    return whole.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL)


def _text(key: str, value: object) -> str:
    """A word or a name: the first MAX_NAME characters of one line, which can do no harm."""
    if not isinstance(value, str):
        raise InvalidParams(key, value, "a text")
    whole = value[: MAX_NAME + 1].encode("utf-8", "replace").decode("utf-8")
    return harmless(whole)


def _name(key: str, value: object) -> str:
    name = _text(key, str(value) if type(value) is int else value).strip()
    if not 0 < len(name) <= MAX_NAME:
        raise InvalidParams(key, name[:40], f"1 to {MAX_NAME} characters")
    return name


def _integer(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidParams(key, value, "a whole number")
    return value


HUGE = 1e9  # beyond every limit: JSON's integers have no end, and float's do


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidParams(key, value, "a number")
    return float(max(min(value, HUGE), -HUGE))


def _within(key: str, value: object, low: float, high: float) -> float:
    number = _number(key, value)
    is_valid, expected = between(low, high)
    if not is_valid(number):
        raise InvalidParams(key, value, expected)
    return number


def _seed(key: str, value: object) -> int:
    """The server sends digits in a text; larger numbers than ComfyUI takes wrap around."""
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or len(text) > MAX_SEED_DIGITS:
        raise InvalidParams(key, text[:40], f"at most {MAX_SEED_DIGITS} digits")
    return int(text) % SEEDS


def _yes_no(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidParams(key, value, "true or false")
    return value


def _switch(payload: Payload, key: str) -> bool:
    return key in payload and _yes_no(key, payload[key])


_PARAMS: dict[str, tuple[str, Callable[[str, object], Any]]] = {
    "width": ("width", _integer),
    "height": ("height", _integer),
    "seed": ("seed", _seed),
    "ddim_steps": ("steps", _integer),
    "cfg_scale": ("cfg", _number),
    "clip_skip": ("clip_skip", _integer),
    "hires_fix": ("hires_fix", _yes_no),
    "hires_fix_denoising_strength": ("hires_denoise", _number),
    "denoising_strength": ("denoise", _number),
    "tiling": ("tiling", _yes_no),
    "facefixer_strength": ("facefixer_strength", _number),
}


# ---- values that belong together -------------------------------------------------------------


def _sampler(payload: Payload) -> tuple[Sampler, tuple[GenMetadata, ...]]:
    name = _text("sampler_name", payload.get("sampler_name") or "k_euler_a")
    known = find_sampler(name)
    if known is not None:
        return known, ()
    nearest = nearest_sampler(name)
    return nearest, (changed(f"sampler {name[:40]!r} is unknown: {nearest.name} was used"),)


def _scheduler(payload: Payload) -> tuple[Scheduler, tuple[GenMetadata, ...]]:
    """`scheduler` where it is given, else what `karras` says."""
    implied = Scheduler.karras if _switch(payload, "karras") else Scheduler.normal
    if "scheduler" not in payload:
        return implied, ()
    name = _text("scheduler", payload["scheduler"]).lower()
    if name in Scheduler.__members__:
        return Scheduler(name), ()
    return implied, (changed(f"scheduler {name[:40]!r} is unknown: {implied} was used"),)


def _sampler_options(
    payload: Payload, sampler: Sampler
) -> tuple[SamplerOptions, tuple[GenMetadata, ...]]:
    """Those that the sampler has, of a value that it takes, but for what is its default anyway.

    The server has checked both: what is left out here is not worth a fault.
    """
    kept, notes = dict[str, Any](), list[GenMetadata]()
    asked = {
        name: payload[f"sampler_{name}"] for name in OPTION_NAMES if f"sampler_{name}" in payload
    }
    for name, value in asked.items():
        option = sampler.options.get(name)
        if option is None:
            notes.append(changed(f"sampler_{name} left out: {sampler.name} has no such option"))
        elif not option.accepts(value):
            notes.append(_left_out(f"sampler_{name}", value, str(option)))
        elif value != option.default:
            kept[name] = _finite(value, option)
    return SamplerOptions(**kept), tuple(notes)


def _finite(value: Any, option: Option) -> Any:
    """Of an option without an upper limit, a number that the solvers can compute with."""
    return float(min(value, HUGE)) if isinstance(option.default, float) else value


def _flow_shift(payload: Payload) -> tuple[float | None, tuple[GenMetadata, ...]]:
    if "flow_shift" not in payload:
        return None, ()
    try:
        return _within("flow_shift", payload["flow_shift"], 0, 100), ()
    except InvalidParams:
        return None, (_left_out("flow_shift", payload["flow_shift"], "a number from 0 to 100"),)


def _left_out(key: str, value: object, expected: str) -> GenMetadata:
    return changed(f"{key}={shown(value)} left out: expected {expected}")


def _control_strength(payload: Payload) -> float:
    return _within("control_strength", payload.get("control_strength", 1.0), 0.01, 3)


def _given(payload: Payload) -> Payload:
    """Without the keys that are null."""
    return {key: value for key, value in payload.items() if value is not None}


def _list(payload: Payload, key: str) -> list[object]:
    """The entries that are not null."""
    value: object = payload.get(key) or []
    if not isinstance(value, list):
        raise InvalidParams(key, value, "a list")
    return [entry for entry in cast("list[object]", value) if entry is not None]


def _objects(payload: Payload, key: str) -> list[Payload]:
    entries = _list(payload, key)
    if not all(isinstance(entry, dict) for entry in entries):
        raise InvalidParams(key, entries, "a list of objects")
    return [_given(entry) for entry in cast("list[Payload]", entries)]


def _each(
    payload: Payload, key: str, read: Callable[[str, Payload], Entry], most: int
) -> tuple[Entry, ...]:
    entries = _objects(payload, key)
    if len(entries) > most:
        raise InvalidParams(key, f"{len(entries)} entries", f"at most {most}")
    return tuple(read(f"{key}[{i}]", entry) for i, entry in enumerate(entries))


def _names(payload: Payload, key: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(key, name) for name in _list(payload, key)))


def _lora(key: str, entry: Payload) -> LoraRequest:
    return LoraRequest(
        name=_name(f"{key}.name", entry.get("name")),
        model=_within(f"{key}.model", entry.get("model", 1.0), -10, 10),
        clip=_within(f"{key}.clip", entry.get("clip", 1.0), -10, 10),
        inject_trigger=_text(f"{key}.inject_trigger", entry.get("inject_trigger") or ""),
        is_version=_switch(entry, "is_version"),
    )


def _ti(key: str, entry: Payload) -> TiRequest:
    place = _text(f"{key}.inject_ti", entry.get("inject_ti") or "")
    if place not in TI_PLACES:
        raise InvalidParams(f"{key}.inject_ti", place, '"prompt" or "negprompt"')
    return TiRequest(
        name=_name(f"{key}.name", entry.get("name")),
        inject_ti=TI_PLACES[place],
        strength=_within(f"{key}.strength", entry.get("strength", 1.0), -10, 10),
    )


def _extra_text(key: str, entry: Payload) -> tuple[str, str]:
    reference = _name(f"{key}.reference", entry.get("reference"))
    return reference, _prompt(f"{key}.text", entry.get("text", ""))[:LONGEST_PROMPT]


def _control(payload: Payload) -> ControlRequest | None:
    if "control_type" not in payload:
        return None
    name = _text("control_type", payload["control_type"])
    if name not in ControlType.__members__:
        raise InvalidParams("control_type", name, "one of " + ", ".join(ControlType))
    return ControlRequest(
        type=ControlType(name),
        strength=_control_strength(payload),
        image_is_control=_switch(payload, "image_is_control"),
        return_control_map=_switch(payload, "return_control_map"),
    )


def _workflow(payload: Payload) -> str:
    name = _text("workflow", payload.get("workflow") or "auto_detect")
    if name not in WORKFLOWS:
        raise NotServed(f"workflow {name[:40]!r}")
    return "" if name == "auto_detect" else name

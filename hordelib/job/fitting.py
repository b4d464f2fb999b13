"""What of a job its model can't do: refused where the picture would be another, else left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from hordelib.errors import NotServed
from hordelib.job.families import Family, Part
from hordelib.job.hires import needs_two_passes
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import GenerationParams, ProcessorKind, Remix, TextOnly
from hordelib.job.samplers import TABLED, Scheduler

Asks = Callable[[GenerationParams, Family], bool]

# Without these the picture would not be what was asked for at all.
_ESSENTIAL: dict[Part, Asks] = {
    Part.control: lambda job, _: job.control is not None and not job.return_control_map,
    Part.qr_code: lambda job, _: job.qr_code is not None,
    Part.remix: lambda job, _: isinstance(job.source, Remix),
    Part.transparent: lambda job, _: job.transparent is not None,
}


@dataclass(frozen=True, slots=True)
class _Optional:
    """A part that the picture is nearly the same without."""

    asks: Asks
    without: dict[str, Any]  # the fields of a job that does not ask for it


_OPTIONAL: dict[Part, _Optional] = {
    Part.hires_fix: _Optional(
        lambda job, family: (
            job.hires_fix and needs_two_passes(job.width, job.height, family.native_side)
        ),
        {"hires_fix": False},
    ),
    Part.clip_skip: _Optional(lambda job, _: job.clip_skip > 1, {"clip_skip": 1}),
    Part.tiling: _Optional(lambda job, _: job.tiling, {"tiling": False}),
    Part.flow_shift: _Optional(lambda job, _: job.flow_shift is not None, {"flow_shift": None}),
}
SUBSTITUTE = Scheduler.simple  # the schedule that every sampler makes a picture with, of any family
# The graph that hides a QR code starts from the code, at the picture's own size.
_NOT_WITH_QR_CODE: dict[str, _Optional] = {
    "source_image": _Optional(
        lambda job, _: not isinstance(job.source, TextOnly), {"source": TextOnly()}
    ),
    "control_type": _Optional(
        lambda job, _: job.control is not None, {"control": None, "return_control_map": False}
    ),
    "hires_fix": _OPTIONAL[Part.hires_fix],
}


def fit(
    params: GenerationParams, family: Family
) -> tuple[GenerationParams, tuple[GenMetadata, ...]]:
    """The job as the family can do it, and a note for each thing that is left out.

    Raises NotServed where what is missing is the point of the job.
    """
    for part, asks in _ESSENTIAL.items():
        if part not in family.serves and asks(params, family):
            raise NotServed(f"{part} with {family.name}")
    rules = {part.value: rule for part, rule in _OPTIONAL.items() if part not in family.serves}
    if params.qr_code is not None:
        rules |= _NOT_WITH_QR_CODE
    left_out = {name: rule for name, rule in rules.items() if rule.asks(params, family)}
    changes = {key: value for rule in left_out.values() for key, value in rule.without.items()}
    notes = [_note(f"{name} left out: not with {_what(params, family)}") for name in left_out]
    if family.is_guided and params.negative_prompt:
        notes.append(_note(f"negative prompt left out: {family.name} models have none"))
    if family.is_guided or not params.reads_negative:
        changes["negative_prompt"] = params.prompt  # encoded anyway; nothing reads it
    fitted = replace(params, **changes)
    for served, why, change in _substitutes(fitted, family):
        notes.append(_note(f"{served} was used: {why}"))
        fitted = replace(fitted, **change)
    if fitted.transparent is not None:
        fitted, told = _beside_transparency(fitted)
        notes += told
    return fitted, tuple(notes)


def prompts_a_run(params: GenerationParams, family: Family) -> int:
    """How many prompts the network reads in each run: the positive one, and mostly the negative.

    ComfyUI leaves out the negative one where it weighs nothing.
    """
    if params.sampler.reads_unguided:
        return 2
    return 1 if family.is_guided or not params.reads_negative else 2


def _substitutes(
    params: GenerationParams, family: Family
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Values that make no picture at all: the field with the one that is served, why, and how."""
    sampler, options = params.sampler, params.sampler_options
    if params.scheduler in TABLED and not family.noise_table:
        why = f"{params.scheduler} is not for {family.name} models"
        yield f"scheduler {SUBSTITUTE}", why, {"scheduler": SUBSTITUTE}
    if params.scheduler in sampler.refuses:
        why = f"{sampler.name} diverges with {params.scheduler}"
        yield f"scheduler {SUBSTITUTE}", why, {"scheduler": SUBSTITUTE}
    most = sampler.most_flow_eta
    if family.is_flow and options.eta is not None and options.eta > most:
        why = f"{options.eta:g} is too much for {family.name} models"
        yield f"sampler_eta {most:g}", why, {"sampler_options": replace(options, eta=most)}
    least = family.least_flow_shift
    if params.flow_shift is not None and params.flow_shift < least:
        yield f"flow_shift {least:g}", "less leaves no noise", {"flow_shift": least}


def _beside_transparency(
    params: GenerationParams,
) -> tuple[GenerationParams, tuple[GenMetadata, ...]]:
    """A control map has no opacity; and of a transparent picture there is nothing to strip."""
    if params.return_control_map:
        told = "transparent left out: not with return_control_map"
        return replace(params, transparent=None), (_note(told),)
    kept = tuple(p for p in params.post_processing if p.kind is not ProcessorKind.background)
    if kept == params.post_processing:
        return params, ()
    told = "strip_background left out: a transparent picture has no background"
    return replace(params, post_processing=kept), (_note(told),)


def _what(params: GenerationParams, family: Family) -> str:
    return f"{family.name} models" if params.qr_code is None else "the workflow qr_code"


def _note(told: str) -> GenMetadata:
    return GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told)

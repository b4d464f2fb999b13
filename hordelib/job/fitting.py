"""What of a job its model can't do: refused where the picture would be another, else left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hordelib.errors import NotServed
from hordelib.job.families import Family, Part
from hordelib.job.hires import needs_two_passes
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import GenerationParams, Remix, TextOnly

Asks = Callable[[GenerationParams, Family], bool]

# Without these the picture would not be what was asked for at all.
_ESSENTIAL: dict[Part, Asks] = {
    Part.control: lambda job, _: job.control is not None and not job.return_control_map,
    Part.qr_code: lambda job, _: job.qr_code is not None,
    Part.remix: lambda job, _: isinstance(job.source, Remix),
    Part.transparent: lambda job, _: job.transparent,
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
}
# The graph that hides a QR code starts from the code, at the picture's own size.
_NOT_WITH_QR_CODE: dict[str, _Optional] = {
    "source_image": _Optional(
        lambda job, _: not isinstance(job.source, TextOnly), {"source": TextOnly()}
    ),
    "control_type": _Optional(lambda job, _: job.control is not None, {"control": None}),
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
    return replace(params, **changes), tuple(notes)


def _what(params: GenerationParams, family: Family) -> str:
    return f"{family.name} models" if params.qr_code is None else "the workflow qr_code"


def _note(told: str) -> GenMetadata:
    return GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told)

"""Figures as a person reads them. The end of a figure's name says its unit."""

from __future__ import annotations

from typing import Any

MIB = 1 << 20
UNITS = {  # end of the name: the unit that is shown, and how many of ours one of them is
    "_bytes": ("MiB", MIB),
    "_seconds": ("s", 1),
    "_ms": ("ms", 1),
    "_watts": ("W", 1),
    "_mhz": ("MHz", 1),
    "_celsius": ("°C", 1),
}
NOTHING = "-"


def unit_name(name: str) -> str:
    """A figure's heading: `peak_bytes` is `peak MiB`.

    >>> unit_name("job.load_seconds")
    'job load s'
    """
    for ending, (unit, _) in UNITS.items():
        if name.endswith(ending):
            name = f"{name.removesuffix(ending)} {unit}"
    return name.replace("_", " ").replace(".", " ")


def in_units(name: str, value: Any) -> str:
    """A figure's value in the unit of its heading, with three digits that matter."""
    if value is None:
        return NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(in_units(name, item) for item in value) or NOTHING  # pyright: ignore
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    return _number(value / _scale(name)) if _scale(name) != 1 else _number(value)


def _scale(name: str) -> int:
    return next((scale for ending, (_, scale) in UNITS.items() if name.endswith(ending)), 1)


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""Results as one page that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import Any

from benchmarks.document import flat
from benchmarks.figures import in_units, unit_name


def page(document: dict[str, Any]) -> str:
    """The HTML of one run."""
    rows = [dict(flat(row)) for row in document["results"]]
    return f"<!doctype html><title>{escape(document['bench'])}</title>{_table(rows)}\n"


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(unit_name(name))}" for name in names)
    lines = (
        "".join(f"<td>{escape(in_units(name, row.get(name)))}" for name in names) for row in rows
    )
    return f"<table><tr>{head}{''.join(f'<tr>{line}' for line in lines)}</table>"

"""Figures as a table on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.figures import in_units, unit_name
from benchmarks.run_file import Figures, is_number

WIDE = 240  # characters: a table that goes into a file is not wrapped


def show(rows: Sequence[Figures]) -> None:
    """A line for each row; numbers are on the right of their columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table()
    for name in names:
        numbers = any(is_number(row.get(name)) for row in rows)
        table.add_column(unit_name(name), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(escape(in_units(name, row.get(name))) for name in names))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)

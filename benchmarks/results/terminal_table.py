"""Figures as a table on the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.table import Table

from benchmarks.results.figures import NOTHING, in_units, unit_name
from benchmarks.results.run_file import Figures, is_number
from worker.service.terminal import make_console

WORDS = 12  # characters of a column of words, at least
WIDE = 240  # characters: a table that goes into a file is not wrapped


def show(rows: Sequence[Figures], keep: Collection[str] = ()) -> None:
    """A line for each row; numbers are on the right of their columns.

    What was the same for all is said once, above, but for columns to `keep`. Where a terminal has
    no room for the columns, each row is a line of words.
    """
    console = make_console(columns=WIDE)
    names = list(dict.fromkeys(name for row in rows for name in row))
    same = [name for name in names if len(rows) > 1 and name not in keep and _is_same(name, rows)]
    if told := in_words(rows[0], same):
        console.print(f"all: {told}")
    columns = [name for name in names if name not in same]
    for is_narrow, padding in ((False, 1), (True, 1), (True, 0)):
        widths = {name: _width(name, rows, is_narrow=is_narrow) for name in columns}
        if sum(width + 2 * padding + 1 for width in widths.values()) < console.width:
            console.print(_table(rows, widths, padding))
            return
    for row in rows:
        console.print(in_words(row, columns))


def in_words(row: Figures, names: Iterable[str]) -> str:
    """Its figures of these names, but for what there is none of."""
    there = (name for name in names if not _is_nothing(row.get(name)))
    return ", ".join(_told(name, row) for name in there)


def _is_nothing(value: object) -> bool:
    return value in (None, "") or value is False


def _table(rows: Sequence[Figures], widths: Mapping[str, int], padding: int) -> Table:
    """With columns of numbers as wide as said, and of words at least."""
    table = Table(padding=(0, padding))
    for name, width in widths.items():
        if _is_numeric(name, rows):
            table.add_column(_heading(name), justify="right", width=width)
        else:
            table.add_column(_heading(name), min_width=width)
    for row in rows:
        table.add_row(*(in_units(name, row.get(name)) for name in widths))
    return table


def _width(name: str, rows: Sequence[Figures], *, is_narrow: bool) -> int:
    """Characters at least: no number and no word of the heading is cut; of words, a few show."""
    most = max((len(in_units(name, row.get(name))) for row in rows), default=0)
    heading = _heading(name)
    parts = heading.split() if is_narrow else [heading]
    return max(*map(len, parts), 1, most if _is_numeric(name, rows) else min(most, WORDS))


def _is_numeric(name: str, rows: Sequence[Figures]) -> bool:
    return any(is_number(row.get(name)) for row in rows)


def _heading(name: str) -> str:
    """The group that a figure belongs to goes without saying."""
    return unit_name(name.rpartition(".")[2])


def _is_same(name: str, rows: Sequence[Figures]) -> bool:
    """Of what was measured: results stay in their columns, alike or not."""
    if any(isinstance(row.get(name), float) for row in rows):
        return False
    return len({in_units(name, row.get(name) or NOTHING) for row in rows}) == 1


def _told(name: str, row: Figures) -> str:
    return f"{_heading(name)} {in_units(name, row.get(name))}"

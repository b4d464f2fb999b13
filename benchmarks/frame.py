"""What every benchmark has in common: its options, its progress, its table and its files.

A benchmark yields one row after the other. A row is a frozen dataclass; the last part of a figure's
name is its unit (`_bytes`, `_seconds`…), and its properties are figures too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import report
from benchmarks.document import (
    BadInput,
    Row,
    check_writable,
    document,
    flat,
    row_figures,
    to_json,
    write,
)
from benchmarks.figures import in_units, unit_name
from benchmarks.machine import commit, dreamer_version, this_hardware
from hordelib.errors import HordelibError

INTERRUPTED = 130  # as a shell has it for Ctrl-C
WIDE = 240  # characters: a table that goes into a file is not wrapped


@dataclass(frozen=True, slots=True)
class Bench:
    """One benchmark.

    `count` is how many rows there will be; it and `rows` raise BadInput for arguments that can't
    be served. `columns` are the figures that the table shows (`outer.inner`); () shows all.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    rows: Callable[[argparse.Namespace], Iterator[Row]]
    count: Callable[[argparse.Namespace], int]
    columns: tuple[str, ...] = ()


def run(bench: Bench, arguments: list[str]) -> int:
    """Measure, show and write; returns the exit code. What is done stays done, however it ends."""
    options = _parser(bench).parse_args(arguments)
    started, made_by = datetime.now(UTC), (this_hardware(), dreamer_version(), commit())
    rows: list[Row] = []
    try:
        for path in filter(None, (options.json, options.html)):
            check_writable(path)
        code = _measure(bench, options, rows)
        if rows:
            result = document(bench.name, rows, _told(options), started, made_by)
            _write_files(options, result)
            _show(bench, rows)
    except BadInput as error:
        return _refuse(str(error))
    return code


def _measure(bench: Bench, options: argparse.Namespace, rows: list[Row]) -> int:
    """Fill `rows`; the exit code says whether all of them are there."""
    terminal = Console(stderr=True)
    total = bench.count(options)
    with _progress(terminal) as progress:
        task = progress.add_task(bench.name, total=total)
        try:
            for row in bench.rows(options):
                rows.append(row)
                progress.advance(task)
                if not terminal.is_terminal:
                    print(f"{bench.name} {len(rows)}/{total}: {_line(bench, row)}", file=sys.stderr)
        except KeyboardInterrupt:
            progress.stop()
            print(f"stopped after {len(rows)} of {total}; what is done is kept", file=sys.stderr)
            return INTERRUPTED
        except HordelibError as error:
            progress.stop()
            return _refuse(f"{error} (after {len(rows)} of {total} rows)", 1)
    return 0


def whole(text: str) -> int:
    """An argument that is a whole number, 0 included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def positive(text: str) -> int:
    """An argument that is a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _progress(terminal: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    elapsed = TimeElapsedColumn()
    return Progress(*columns, elapsed, console=terminal, disable=not terminal.is_terminal)


def _refuse(reason: str, code: int = 2) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return code


def _write_files(options: argparse.Namespace, result: dict[str, Any]) -> None:
    texts = {options.json: lambda: to_json(result), options.html: lambda: report.page(result)}
    for path, text in texts.items():
        if path is not None:
            write(path, text())


def _told(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments that change what is measured."""
    return {name: _plain(v) for name, v in vars(options).items() if name not in ("json", "html")}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _shown(bench: Bench, row: Row) -> dict[str, Any]:
    figures = dict(flat(row_figures(row)))
    return {name: figures.get(name) for name in bench.columns} if bench.columns else figures


def _line(bench: Bench, row: Row) -> str:
    figures = _shown(bench, row).items()
    return ", ".join(f"{unit_name(name)} {in_units(name, value)}" for name, value in figures)


def _show(bench: Bench, rows: list[Row]) -> None:
    shown = [_shown(bench, row) for row in rows]
    names = list(dict.fromkeys(name for figures in shown for name in figures))
    table = Table()
    for name in names:
        is_number = isinstance(shown[0].get(name), int | float)
        table.add_column(unit_name(name), justify="right" if is_number else "left")
    for figures in shown:
        table.add_row(*(in_units(name, figures.get(name)) for name in names))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _parser(bench: Bench) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"benchmark {bench.name}", description=bench.help)
    bench.add_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="a few small cases (minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the results there"
    )
    return parser

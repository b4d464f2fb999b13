"""What every benchmark has in common: its options, its progress, its table and its files.

A benchmark yields one row after the other. A row is a frozen dataclass; the last part of a figure's
name is its unit (`_bytes`, `_seconds`…), and its properties are figures too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.measure.machine import commit, this_hardware
from benchmarks.results import report
from benchmarks.results.document import (
    BadInput,
    Row,
    check_writable,
    document,
    flat,
    row_figures,
    to_json,
    write,
)
from benchmarks.results.run_file import Run
from benchmarks.results.terminal_table import in_words, show
from hordelib.errors import HordelibError
from worker.errors import WorkerError
from worker.service.terminal import make_console
from worker.version import VERSION

INTERRUPTED = 130  # as a shell has it for Ctrl-C


class Measured(Enum):
    """One more measurement, of which there is no row yet."""

    MEASURED = 1


MEASURED = Measured.MEASURED


@dataclass(frozen=True, slots=True)
class Bench:
    """One benchmark.

    `rows` gives a row as soon as it is there, and MEASURED for a measurement that is a part of one.
    Interrupted by the keyboard, it may still give the rows that it has, and raises that then.
    A row whose `error` is not empty could not be measured; it is a failure where all are like that.
    `count` is how many it will give of both. Both raise BadInput for arguments of no use.
    `columns` are the figures that the table shows (`outer.inner`); () shows all. `then` is called
    when all rows are there and shown; it raises BadInput, too.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    rows: Callable[[argparse.Namespace], Iterator[Row | Measured]]
    count: Callable[[argparse.Namespace], int]
    columns: tuple[str, ...] = ()
    then: Callable[[argparse.Namespace, Sequence[Row]], None] = lambda _options, _rows: None


def run(bench: Bench, arguments: list[str]) -> int:
    """Measure, show and write; returns the exit code. What is done stays done, however it ends."""
    options = _parser(bench).parse_args(arguments)
    started, made_by = datetime.now(UTC), (this_hardware(), VERSION, commit())
    rows: list[Row] = []
    try:
        _check_files(options)
        try:
            code = _measure(bench, options, rows)
        finally:
            if rows:
                _show(bench, rows)
                result = document(bench.name, rows, _told(options), started, made_by)
                _write_files(bench, options, result)
        if code == 0:
            bench.then(options, rows)
    except BadInput as error:
        return _refuse(str(error))
    return code


def _check_files(options: argparse.Namespace) -> None:
    """So that nothing is measured in vain."""
    paths = [path for path in (options.json, options.html) if path is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise BadInput(f"--json and --html name the same file: {options.json}")
    for path in paths:
        check_writable(path)


def _measure(bench: Bench, options: argparse.Namespace, rows: list[Row]) -> int:
    """Fill `rows`; the exit code says whether all of them are there."""
    terminal = make_console(sys.stderr)
    total = bench.count(options)
    with _progress(terminal) as progress:
        task = progress.add_task(bench.name, total=total)
        try:
            for done, row in enumerate(bench.rows(options), start=1):
                progress.update(task, completed=min(done, total))
                if row is not MEASURED:
                    rows.append(row)
                    if not terminal.is_terminal:
                        print(f"{bench.name} {done}/{total}: {_line(bench, row)}", file=sys.stderr)
        except KeyboardInterrupt:
            progress.stop()
            print(f"stopped; what is done is kept: {len(rows)} rows", file=sys.stderr)
            return INTERRUPTED
        except (HordelibError, WorkerError) as error:
            progress.stop()
            return _refuse(f"{error} (after {len(rows)} rows)", 1)
    if rows and all(getattr(row, "error", "") for row in rows):
        return _refuse("nothing could be measured: each row has its error", 1)
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


def _write_files(bench: Bench, options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json is not None:
        write(options.json, to_json(result))
    if options.html is not None:
        write(options.html, report.page(Run.of(result), bench.columns))


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
    figures = _shown(bench, row)
    return in_words(figures, figures)


def _show(bench: Bench, rows: list[Row]) -> None:
    show([_shown(bench, row) for row in rows])


def _parser(bench: Bench) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"benchmark {bench.name}", description=bench.help)
    bench.add_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="a few small cases (minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with the results there"
    )
    return parser

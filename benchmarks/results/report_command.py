"""`benchmark report`: a run that is there already, or two of them compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.results import comparison, report
from benchmarks.results.comparison import Comparison
from benchmarks.results.document import BadInput, check_writable, write
from benchmarks.results.run_file import Run, read_run
from benchmarks.results.terminal_table import show

Page = Callable[[], str]


class NothingAlike(Exception):
    """Two runs, of which no row measured the same as one of the other; one line that says so."""


def main(arguments: list[str], columns: Mapping[str, Sequence[str]]) -> int:
    """Show, and write the page if wanted. `columns` of each bench's table.

    Returns 2 for files that can't be used or are no runs of one bench, and 1, without a page, for
    runs that have nothing alike.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.html is not None:
            _check_page(options.html, filter(None, (options.run, options.newer)))
        page = _shown(options, columns)
        if options.html is not None:
            write(options.html, page())
    except BadInput as error:
        return _refuse(str(error), 2)
    except NothingAlike as error:
        return _refuse(str(error), 1)
    return 0


def _shown(options: argparse.Namespace, columns: Mapping[str, Sequence[str]]) -> Page:
    run = read_run(options.run)
    shown = columns.get(run.bench, ())
    if options.newer is None:
        return _one(run, shown)
    compared = comparison.compare(run, read_run(options.newer))
    return _two(compared, shown, (str(options.run), str(options.newer)))


def _refuse(reason: str, code: int) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return code


def _check_page(path: Path, runs: Iterable[Path]) -> None:
    """Raises BadInput where it can't be written, or would take the place of one of these runs."""
    check_writable(path)
    for run in runs:
        if path.exists() and run.exists() and path.samefile(run):
            raise BadInput(f"{path} is the run itself: give the page another name")


def _one(run: Run, columns: Sequence[str]) -> Page:
    for name, told in report.run_facts(run).items():
        print(f"{name}: {told}")
    show([{name: row.get(name) for name in columns or row} for row in run.rows])
    return partial(report.page, run, columns)


def _two(compared: Comparison, columns: Sequence[str], files: tuple[str, str]) -> Page:
    runs = {"old": (files[0], compared.old), "new": (files[1], compared.new)}
    for side, (file, run) in runs.items():
        started = report.run_facts(run)["started"]
        print(f"{side}: {file}, {run.bench}, {started}, commit {run.commit}")
    for line in compared.differences:
        print(f"not the same: {line}")
    if compared.pairs:
        table = comparison.table(compared, comparison.chosen(compared, columns))
        show(table, keep=("figure", "old", "new"))
    for side, rows in (("old", compared.only_old), ("new", compared.only_new)):
        for told in rows:
            print(f"only in the {side} run: {told}")
    if not compared.pairs:
        raise NothingAlike(f"no row of {files[0]} measured the same as one of {files[1]}")
    return partial(comparison.page, compared, files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark report", description="the results of a run, or of two compared"
    )
    parser.add_argument("run", type=Path, metavar="A.json", help="written by --json")
    parser.add_argument(
        "newer", type=Path, nargs="?", metavar="B.json", help="a newer one to compare with it"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots there")
    return parser

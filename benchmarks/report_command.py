"""`benchmark report`: a run that is there already, or two of them compared."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks import comparison, report
from benchmarks.comparison import Comparison
from benchmarks.document import BadInput, check_writable, write
from benchmarks.run_file import Run, read_run
from benchmarks.terminal_table import show

Page = Callable[[], str]


def main(arguments: list[str], columns: Mapping[str, Sequence[str]]) -> int:
    """Show, and write the page if wanted; 2 for files that are no runs of one bench.

    `columns` of each bench's table.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.html is not None:
            _check_page(options.html, filter(None, (options.run, options.newer)))
        run = read_run(options.run)
        newer = read_run(options.newer) if options.newer is not None else None
        shown = columns.get(run.bench, ())
        page = _two(comparison.compare(run, newer), shown) if newer else _one(run, shown)
        if options.html is not None:
            write(options.html, page())
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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


def _two(compared: Comparison, columns: Sequence[str]) -> Page:
    for side, run in (("old", compared.old), ("new", compared.new)):
        print(f"{side}: {run.bench}, {report.run_facts(run)['started']}, commit {run.commit}")
    for line in compared.differences:
        print(f"not the same: {line}")
    if compared.pairs:
        show(comparison.table(compared, comparison.chosen(compared, columns)))
    for side, rows in (("old", compared.only_old), ("new", compared.only_new)):
        for told in rows:
            print(f"only in the {side} run: {told}")
    return partial(comparison.page, compared, columns)


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

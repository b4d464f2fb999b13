"""`models list | add | remove | verify | top | disk`: tables for people, JSON with --json.

What was asked for goes to standard output; progress and problems go to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from hordelib.errors import JobError, ModelBroken, ModelMissing
from hordelib.files.headers import verify_checkpoint
from hordelib.files.model import Model
from hordelib.files.names import ModelStore
from hordelib.job.control_types import CLASSIC
from worker.cli.exit_codes import ExitCode
from worker.cli.named_models import NO_LIST, insist_on_lists, meant_entries
from worker.errors import UnknownModel, UsageError
from worker.models.files.control_files import annotator_entries
from worker.models.files.on_disk import (
    DISK_FLOOR_BYTES,
    Plan,
    State,
    Stock,
    make_plan,
    size_text,
    state_by_size,
    state_of,
)
from worker.models.files.removal import remove_files
from worker.models.files.supply import ModelSupply, arrived_bytes
from worker.models.files.unlisted_weights import safety_entry
from worker.models.inventory import Inventory, ModelsFolder, idle, take_inventory
from worker.models.reference import Kind, ReferenceEntry, ReferenceFile
from worker.models.sites import read_uses
from worker.service.terminal import make_console

Row = Mapping[str, object]
_POLL_SECONDS = 0.2


def run_models_command(folder: ModelsFolder, options: argparse.Namespace) -> int:
    """Do `options.action`; its exit code. Raises WorkerError with one line for each problem."""
    return _ACTIONS[options.action](folder, options)


def fetch_annotators(folder: ModelsFolder) -> int:
    """Download the weights of the first nine types' annotators, and verify those that are there."""
    return _fetch(folder, annotator_entries(CLASSIC))


def fetch_safety(folder: ModelsFolder) -> int:
    """Download the weights of horde_safety as far as they are missing, and verify the rest."""
    return _fetch(folder, (safety_entry(),))


def _fetch(folder: ModelsFolder, entries: Sequence[ReferenceEntry]) -> int:
    stocks = [folder.look(entry) for entry in entries]
    return _supply(folder, stocks, make_plan(stocks, (), folder.free_bytes), as_json=False)


# ---- list ------------------------------------------------------------------------------------


def _list(folder: ModelsFolder, options: argparse.Namespace) -> int:
    inventory = take_inventory(folder)
    rows = _rows(inventory)
    if options.all:
        shown = {row["name"] for row in rows}
        others = folder.reference().entries.values()
        rows += [_row(folder.look(row), chosen=False) for row in others if row.name not in shown]
    plan = inventory.plan
    refused = (each.reason for each in plan.refused)
    problems = [*inventory.notes, *inventory.problems, *refused]
    if options.json:
        told = {"free_bytes": plan.free_bytes, "to_come_bytes": plan.to_come_bytes}
        _print_json({"models": rows, **told, "problems": problems})
        return ExitCode.UNREACHABLE if inventory.is_unknown else ExitCode.OK
    _print_table(rows, ("name", "family", "size", "state", "chosen"))
    if inventory.is_unknown:
        insist_on_lists(inventory.reference)
    print(plan.summary)
    return _complain(problems)


def _rows(inventory: Inventory) -> list[Row]:
    """What is chosen, then what else of the reference lies on disk."""
    listed = inventory.stocks
    chosen = [
        _row(listed[name], chosen=True) if name in listed else _own_row(inventory, name)
        for name in inventory.names
    ]
    others = idle(inventory.folder, inventory.reference, inventory.names)
    return [*chosen, *(_row(stock, chosen=False) for stock in others)]


def _row(stock: Stock, *, chosen: bool) -> Row:
    return {
        "name": stock.name,
        "kind": stock.entry.kind.name,
        "family": stock.entry.family,
        "size_bytes": stock.entry.size_bytes or stock.there_bytes,
        "there_bytes": stock.there_bytes,
        "state": stock.state.value,
        "chosen": chosen,
    }


def _own_row(inventory: Inventory, name: str) -> Row:
    """A model that no reference lists: its owner's word is all there is."""
    folder = inventory.folder
    store = ModelStore(folder.path, folder.customs)
    try:
        path = store.checkpoint(name)
    except ModelMissing:
        path = Path(name)
    there_bytes = path.stat().st_size if path.is_file() else 0
    return {
        "name": name,
        "kind": Kind.model.name,
        "family": _family(path, name) or ("custom" if name in folder.customs else ""),
        "size_bytes": there_bytes,
        "there_bytes": there_bytes,
        "state": (State.unlisted if there_bytes else State.missing).value,
        "chosen": True,
    }


def _family(path: Path, name: str) -> str:
    """By what the file says of itself; "" where it says nothing."""
    with suppress(JobError, OSError):
        return Model.of_checkpoint(path, name).family.name
    return ""


# ---- add -------------------------------------------------------------------------------------


def _add(folder: ModelsFolder, options: argparse.Namespace) -> int:
    inventory = take_inventory(folder)
    stocks, plan = list(inventory.stocks.values()), inventory.plan
    if options.names:
        reference = insist_on_lists(folder.reference())
        stocks = [folder.look(entry) for entry in meant_entries(folder, reference, options.names)]
        kept = (*inventory.names, *(stock.name for stock in stocks))
        plan = make_plan(stocks, idle(folder, reference, kept), folder.free_bytes)
    elif inventory.is_unknown:
        insist_on_lists(inventory.reference)
    else:
        _complain((*inventory.notes, *inventory.problems))
    return _supply(folder, stocks, plan, as_json=options.json, dry_run=options.dry_run)


def _supply(
    folder: ModelsFolder,
    stocks: Sequence[Stock],
    plan: Plan,
    *,
    as_json: bool,
    dry_run: bool = False,
) -> int:
    """Show the plan and, unless that is all, carry it out; files that are there are verified."""
    if not as_json:
        _print_table([_row(stock, chosen=False) for stock in stocks], ("name", "size", "state"))
        print(plan.summary, flush=True)
    there = [stock for stock in stocks if not stock.is_wanting]
    problems = {} if dry_run else _carry_out(folder, [*there, *plan.fetched])
    refused = {each.stock.name: each.reason for each in plan.refused}
    if as_json:
        _print_json(
            {
                "to_come_bytes": plan.to_come_bytes,
                "free_bytes": folder.free_bytes,
                "fetched": [s.name for s in plan.fetched if s.name not in problems],
                "there": [s.name for s in there if s.name not in problems],
                "failed": problems,
                "refused": refused,
            }
        )
    _complain([*refused.values(), *problems.values()])
    if problems:
        return ExitCode.FAILED
    return ExitCode.DISK if refused else ExitCode.OK


def _carry_out(folder: ModelsFolder, stocks: Sequence[Stock]) -> dict[str, str]:
    """Complete the models; the problem of each that failed."""
    problems: dict[str, str] = {}
    console = make_console(sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        total_bytes = sum(stock.entry.size_bytes or stock.there_bytes for stock in stocks)
        bar = progress.add_task("models", total=total_bytes or None, told="")
        for outcome in ModelSupply(stocks, folder.fetcher()).outcomes(_POLL_SECONDS):
            done_bytes = arrived_bytes(stocks)
            progress.update(bar, completed=done_bytes, told=size_text(done_bytes))
            if outcome is not None and outcome.problem:
                problems[outcome.stock.name] = outcome.problem
            elif outcome is not None:
                console.print(f"{outcome.stock.name}: verified")
    return problems


# ---- remove ----------------------------------------------------------------------------------


def _remove(folder: ModelsFolder, options: argparse.Namespace) -> int:
    reference = insist_on_lists(folder.reference())
    own = [name for name in options.names if name in folder.customs]
    if own:
        raise UnknownModel(f"{own[0]!r} is yours (custom_models): its file is not removed")
    leaving = [folder.look(entry) for entry in meant_entries(folder, reference, options.names)]
    absent = [stock.name for stock in leaving if not stock.there_bytes]
    if absent:
        raise UnknownModel("\n".join(f"{name!r} is not on disk" for name in absent))
    removed = remove_files(folder, reference, leaving)
    if options.json:
        _print_json(
            {
                "removed": [stock.name for stock in leaving],
                "freed_bytes": removed.freed_bytes,
                "free_bytes": folder.free_bytes,
            }
        )
    else:
        print(f"{size_text(removed.freed_bytes)} freed; {size_text(folder.free_bytes)} free")
    return _complain(removed.kept)


# ---- verify ----------------------------------------------------------------------------------


def _verify(folder: ModelsFolder, options: argparse.Namespace) -> int:
    reference = insist_on_lists(folder.reference())
    entries = (
        meant_entries(folder, reference, options.names)
        if options.names
        else list(reference.entries.values())
    )
    files = {
        file.path: (stock, file.about)
        for stock in map(folder.look, entries)
        for file in stock.files
        if file.path.is_file()
    }
    rows = [_verified(folder, path, *about) for path, about in files.items()]
    if not options.names:
        own = [path for path in ModelStore(folder.path).files() if path not in files]
        rows += [_header_verified(path) for path in own]
    if options.json:
        _print_json({"files": rows})
    else:
        _print_table(rows, ("name", "file", "state"))
    is_damaged = any(row["state"] in (State.other.value, _DAMAGED) for row in rows)
    return ExitCode.FAILED if is_damaged else ExitCode.OK


def _verified(folder: ModelsFolder, path: Path, stock: Stock, about: ReferenceFile) -> Row:
    wanted = about.checksum
    if about.by_size:
        state = state_by_size(path, about)
        return {"name": stock.name, "file": str(path), "state": state.value, "sha256": ""}
    row = {"name": stock.name, "file": str(path), "sha256": ""}
    try:
        found = folder.verified.measure(path, of_tensors=wanted.of_tensors)
    except (ModelBroken, OSError) as error:
        told = f"{path}: can't be read ({error.strerror})" if isinstance(error, OSError) else error
        print(f"dreamer: {told}", file=sys.stderr)
        return row | {"state": _DAMAGED}
    row["content_hash" if wanted.of_tensors else "sha256"] = found
    return row | {"state": state_of(found, wanted.value).value}


_DAMAGED = "damaged"


def _header_verified(path: Path) -> Row:
    """A file of which nobody can say what should be in it: only whether it is whole."""
    try:
        verify_checkpoint(path)
    except ModelBroken as error:
        print(f"dreamer: {error}", file=sys.stderr)
        return {"name": "", "file": str(path), "state": _DAMAGED, "sha256": ""}
    return {"name": "", "file": str(path), "state": State.unlisted.value, "sha256": ""}


# ---- top and disk ----------------------------------------------------------------------------


def _top(folder: ModelsFolder, options: argparse.Namespace) -> int:
    inventory = take_inventory(folder)
    entries = insist_on_lists(inventory.reference).entries
    if not inventory.reference.models:
        raise UsageError(f"models top: {NO_LIST}")
    uses = read_uses(folder.documents, folder.config.horde_url)
    ranked = sorted((name for name in uses if name in entries), key=lambda name: -uses[name])
    rows = [
        {
            **_row(folder.look(entries[name]), chosen=name in inventory.names),
            "rank": rank,
            "pictures": uses[name],
        }
        for rank, name in enumerate(ranked[: max(options.count, 0)], 1)
    ]
    if options.json:
        return _print_json({"models": rows})
    _print_table(rows, ("rank", "name", "family", "pictures", "size", "state", "chosen"))
    return ExitCode.OK


def _disk(folder: ModelsFolder, options: argparse.Namespace) -> int:
    inventory = take_inventory(folder)
    folders = _folder_bytes(folder.path)
    unchosen = idle(folder, inventory.reference, inventory.names)
    rows = [_row(stock, chosen=False) for stock in sorted(unchosen, key=lambda s: -s.there_bytes)]
    free_bytes = folder.free_bytes
    if options.json:
        told = {"free_bytes": free_bytes, "kept_free_bytes": DISK_FLOOR_BYTES}
        return _print_json({"folders": folders, **told, "unchosen": rows})
    _print_table(
        [{"folder": name, "size_bytes": taken} for name, taken in folders.items()],
        ("folder", "size"),
    )
    print(f"{size_text(free_bytes)} free, of which {size_text(DISK_FLOOR_BYTES)} always stay free")
    if rows:
        print("On disk, but not chosen by bridgeData.yaml (models remove NAME):")
        _print_table(rows, ("name", "family", "size"))
    return ExitCode.OK


def _folder_bytes(folder: Path) -> dict[str, int]:
    """How much each folder of the models folder takes, the largest first."""
    subfolders = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    sizes = {
        path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        for path in subfolders
    }
    return dict(sorted(sizes.items(), key=lambda each: -each[1]))


# ---- printing --------------------------------------------------------------------------------


_CELLS: Mapping[str, Callable[[Row], str]] = {
    "size": lambda row: (
        size_text(int(str(row["size_bytes"]))) if row["size_bytes"] or "folder" in row else "?"
    ),
    "chosen": lambda row: "yes" if row["chosen"] else "",
}


def _print_table(rows: Iterable[Row], columns: Sequence[str]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        is_number = column in ("size", "rank", "pictures")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_CELLS.get(name, lambda r, n=name: str(r[n]))(row) for name in columns))
    make_console(columns=160).print(table)


def _print_json(document: Row) -> int:
    print(json.dumps(document, indent=1, ensure_ascii=False))
    return ExitCode.OK


def _complain(problems: Iterable[str]) -> int:
    for problem in problems:
        print(f"dreamer: {problem}", file=sys.stderr)
    return ExitCode.OK


_ACTIONS: Mapping[str, Callable[[ModelsFolder, argparse.Namespace], int]] = {
    "list": _list,
    "add": _add,
    "remove": _remove,
    "verify": _verify,
    "top": _top,
    "disk": _disk,
}

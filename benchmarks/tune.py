"""`benchmark tune`: measures this machine, and proposes what bridgeData.yaml should say of it.

A row is a proposal with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.document import BadInput, Row
from benchmarks.frame import Bench
from benchmarks.machine import PROJECT
from benchmarks.tune_owner import Owner
from benchmarks.tune_trials import Trials
from benchmarks.tuning import Proposal, Tuning
from hordelib import Engine
from hordelib.memory_readings import main_memory
from worker.assembly import make_client
from worker.config import MemoryReserve
from worker.config_edit import Value, change_settings
from worker.devices import Card
from worker.errors import ConfigError, HordeError

CONFIG = PROJECT / "bridgeData.yaml"
HOW_TO_GET_ONE = "./horde-bridge.sh run writes one to fill in"
CALLS = 3
MARGIN_BYTES, ROUND_BYTES = 512 << 20, 64 << 20
MIB = 1 << 20


def _rows(options: argparse.Namespace) -> Iterator[Proposal]:
    owner = Owner.of(options.config)
    if owner.card is not None:
        reserve = _reserve(owner, owner.card)
        yield reserve
        free = MemoryReserve.parse(reserve.proposed)
        owner = replace(owner, config=owner.config.model_copy(update={"vram_to_leave_free": free}))
    steps, repeats = (3, 1) if options.quick else (6, 3)
    with _engine(owner) as engine:
        trials = Trials(engine, steps, repeats)
        yield from Tuning(owner, trials.job_seconds, _call_seconds(owner)).proposals()


def _reserve(owner: Owner, card: Card) -> Proposal:
    """Nothing of ours is on the card yet."""
    others = card.memory_bytes - card.free_bytes
    wanted = -(-(others + MARGIN_BYTES) // ROUND_BYTES) * ROUND_BYTES
    reason = f"other programs use {others // MIB} MiB now, and {MARGIN_BYTES // MIB} MiB more"
    key = "vram_to_leave_free"
    return Proposal(key, owner.now(key), f"{wanted // MIB} MiB", f"{reason} are for what they open")


def _engine(owner: Owner) -> Engine:
    """As the worker has it."""
    own = owner.config.comfyui_path
    home = owner.file.resolve().parent if owner.file else PROJECT
    return Engine(
        comfyui=home / own if own else None,
        ram_reserve_bytes=owner.config.ram_to_leave_free.bytes_of(main_memory().total_bytes),
        vram_reserve_bytes=owner.memory.reserve_bytes if owner.card else None,
    )


def _call_seconds(owner: Owner) -> float | None:
    """Of the owner's horde, the connection's making included; None where it does not answer."""
    if owner.file is None:
        return None
    try:
        return median(_heartbeat_seconds(owner) for _ in range(CALLS))
    except HordeError:
        return None


def _heartbeat_seconds(owner: Owner) -> float:
    with make_client(owner.config) as client:
        started = time.perf_counter()
        client.heartbeat()
        return time.perf_counter() - started


def _count(options: argparse.Namespace) -> int:
    """Looks at the file, so that nothing is measured for one that can't be used."""
    if options.write and not options.config.exists():
        raise BadInput(f"{options.config}: no such file; {HOW_TO_GET_ONE}")
    owner = Owner.of(options.config)
    return 3 + (owner.card is not None) + (owner.file is not None)


def _then(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    proposals = [row for row in rows if isinstance(row, Proposal)]
    changes = {each.key: each.proposed for each in proposals if each.proposed != each.now}
    if not options.config.exists():
        print(f"there is no {options.config}: {HOW_TO_GET_ONE}; the defaults are shown as set now")
    elif not changes:
        print(f"{options.config} has all of that already")
    elif options.write:
        _write(options.config, changes)
    else:
        print(f"benchmark tune --write puts that into {options.config}")


def _write(path: Path, changes: dict[str, Value]) -> None:
    try:
        backup = change_settings(path, changes)
    except ConfigError as error:
        raise BadInput("; ".join(error.problems)) from error
    except OSError as error:
        raise BadInput(f"{path} can't be written: {error.strerror}") from error
    print(f"{path}: changed {', '.join(changes)}; what it was is in {backup.name}")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    told = "whose models and keys count (default: bridgeData.yaml beside horde-bridge.sh)"
    parser.add_argument("--config", type=Path, default=CONFIG, metavar="PATH", help=told)
    parser.add_argument(
        "--write", action="store_true", help="put the proposals into it; a copy of it is kept"
    )


BENCH = Bench(
    name="tune",
    help="measures this machine, and proposes what bridgeData.yaml should say of it",
    add_arguments=_add_arguments,
    rows=_rows,
    count=_count,
    columns=("key", "now", "proposed", "reason"),
    then=_then,
)

"""`benchmark tune`: measures this machine, and proposes what bridgeData.yaml should say of it.

A row is a proposal with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.measure.machine import PROJECT
from benchmarks.results.document import BadInput, Row
from benchmarks.results.frame import Bench
from benchmarks.tuning.tune_owner import Owner
from benchmarks.tuning.tune_trials import Trials
from benchmarks.tuning.tuning import HordeCall, Proposal, Tuning, models_proposal
from hordelib import Engine
from hordelib.memory.readings import main_memory
from worker.config.editing import Value, change_settings, try_change
from worker.config.values import MemoryReserve
from worker.devices import Card
from worker.errors import ConfigError, HordeError
from worker.line.pausing import PauseKind
from worker.service.assembly import make_client
from worker.service.orders import Orders
from worker.service.state_folder import STATE, is_taken

CONFIG = PROJECT / "bridgeData.yaml"
HOW_TO_GET_ONE = "./horde-bridge.sh setup writes one"
HOW_TO_GET_MODELS = "./horde-bridge.sh models add NAME"
MEASURED_KEYS = ("max_power", "queue_size", "max_batch")
CALLS = 3
MARGIN_BYTES, ROUND_BYTES = 512 << 20, 64 << 20
MIB = 1 << 20


def _rows(options: argparse.Namespace) -> Iterator[Proposal]:
    owner = Owner.of(options.config)
    if owner.card is not None:
        reserve = _reserve(owner, owner.card)
        yield reserve
        owner = _with_reserve(owner, reserve)
    if owner.file is not None:
        yield models_proposal(owner)
    owner = owner.or_demo()
    steps, repeats = (3, 1) if options.quick else (6, 3)
    with _engine(owner) as engine:
        trials = Trials(engine, steps, repeats)
        yield from Tuning(owner, trials.job_seconds, _horde_call(owner)).proposals()


def _with_reserve(owner: Owner, reserve: Proposal) -> Owner:
    free = MemoryReserve.parse_cards(reserve.proposed)
    config = owner.config.model_copy(update={reserve.key: free})
    return replace(owner, config=config)


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
    return Engine(
        comfyui=owner.home / own if own else None,
        ram_reserve_bytes=owner.config.ram_to_leave_free.bytes_of(main_memory().total_bytes),
        vram_reserve_bytes=owner.memory.reserve_bytes if owner.card else None,
    )


def _horde_call(owner: Owner) -> HordeCall:
    """To the owner's horde, the connection's making included."""
    if owner.file is None:
        return HordeCall(assumed="no file names a horde")
    try:
        return HordeCall(median(_heartbeat_seconds(owner) for _ in range(CALLS)))
    except HordeError as error:
        return HordeCall(assumed=f"{owner.config.horde_url} could not be asked: {error}")


def _heartbeat_seconds(owner: Owner) -> float:
    with make_client(owner.config) as client:
        started = time.perf_counter()
        client.heartbeat()
        return time.perf_counter() - started


def _count(options: argparse.Namespace) -> int:
    """Looks at all that it takes, so that nothing is measured in vain."""
    if options.write and not options.config.exists():
        raise BadInput(f"{options.config}: no such file; {HOW_TO_GET_ONE}")
    owner = Owner.of(options.config)
    _insist_on_a_free_device(owner.home / STATE)
    if options.write:
        _insist_on_own_models(owner)
        changes = _changes_to_try(owner)
        with _problems_told(options.config):
            try_change(options.config, changes)
    return len(MEASURED_KEYS) + (owner.card is not None) + (owner.file is not None)


def _insist_on_a_free_device(state: Path) -> None:
    """A worker that is paused has no engine."""
    if is_taken(state) and not _is_paused(state):
        remedy = "stop it, or pause it by ./horde-bridge.sh pause, until this is done"
        raise BadInput(f"a worker runs with {state}, which would be measured, too; {remedy}")


def _is_paused(state: Path) -> bool:
    told = Orders(state).answered()
    if told is None or told.doing != "paused":
        return False
    return not any(each.kind is PauseKind.rest for each in told.pauses)


def _insist_on_own_models(owner: Owner) -> None:
    if not owner.models:
        lack = owner.told_missing or "models_to_load chooses none that is here"
        remedy = f"get one by {HOW_TO_GET_MODELS}, or measure the demo model without --write"
        raise BadInput(f"none of your models is here to be measured: {lack}; {remedy}")


def _changes_to_try(owner: Owner) -> dict[str, Value]:
    """Of what is measured, only the keys are known by now."""
    known: list[Proposal] = []
    if owner.card is not None:
        known.append(_reserve(owner, owner.card))
        owner = _with_reserve(owner, known[0])
    known.append(models_proposal(owner))
    return {key: owner.now(key) for key in MEASURED_KEYS} | _changes(known)


def _changes(proposals: Sequence[Proposal]) -> dict[str, Value]:
    return {each.key: each.proposed for each in proposals if each.proposed != each.now}


def _then(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    proposals = [row for row in rows if isinstance(row, Proposal)]
    changes = _changes(proposals)
    if not options.config.exists():
        told = "the defaults are shown as set now, and the figures are of the demo model"
        print(f"there is no {options.config}: {HOW_TO_GET_ONE}; {told}")
    elif any(each.is_of_demo for each in proposals):
        told = f"not for {options.config}; get one by {HOW_TO_GET_MODELS} and run this again"
        print(f"none of your models is here: these figures are of the demo model, {told}")
    elif not changes:
        print(f"{options.config} has all of that already")
    elif options.write:
        _write(options.config, changes)
    else:
        print(f"benchmark tune --write puts that into {options.config}")


def _write(path: Path, changes: dict[str, Value]) -> None:
    with _problems_told(path):
        backup = change_settings(path, changes)
    told = f"what it was is in {backup.name}; a worker reads it when it is started"
    print(f"{path}: changed {', '.join(changes)}; {told}")


@contextmanager
def _problems_told(path: Path) -> Generator[None]:
    try:
        yield
    except ConfigError as error:
        raise BadInput("; ".join(error.problems)) from error
    except OSError as error:
        raise BadInput(f"{path} can't be written: {error.strerror}") from error


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

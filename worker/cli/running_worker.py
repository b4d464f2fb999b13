"""What an owner asks a running worker from another terminal, and tells it: status, pause and so on.

Nothing of it needs the network, ComfyUI or torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from hordelib.files.whole_files import make_private
from worker.cli.exit_codes import ExitCode
from worker.command_line import as_typed
from worker.config.config import load_config
from worker.config.document import CONFIG_FILE
from worker.errors import UsageError
from worker.horde.kinds import Kind
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.totals import Totals, read_totals
from worker.line.devices.device_state import DeviceState
from worker.line.pausing import PauseCause
from worker.service.machine import read_card
from worker.service.orders import (
    ENDED,
    MAINTENANCE,
    SERVING,
    STARTING,
    WAITING,
    Given,
    Order,
    Orders,
)
from worker.service.overview import JobOverview, KindOverview, Overview
from worker.service.pause_times import parse_pause
from worker.service.pauses import moment
from worker.service.state_folder import STATE, is_taken
from worker.service.terminal import WIDTH, counted, make_console, print_totals

ANSWER_SECONDS, START_SECONDS = 5.0, 60.0  # for a worker that serves, and for one that starts
WATCH_SECONDS = 2.0
NOT_RUNNING = "not running"


def pause(options: argparse.Namespace) -> int:
    try:
        end = parse_pause(" ".join(options.time), now := time.time())
    except ValueError as error:
        raise UsageError(f"pause: {error}") from None
    given = Given(
        order=Order.pause, until=end.until, is_span=end.is_span, at_once=bool(options.now)
    )
    until = f" until {moment(end.until, now)}" if end.until is not None else ""
    return _order(options.home / STATE, given, f"if it is started, it is paused{until}", until)


def resume(options: argparse.Namespace) -> int:
    serve = Given(order=Order.serve)
    return _order(options.home / STATE, serve, "it will serve when it is started")


def drain(options: argparse.Namespace) -> int:
    return _end(options.home / STATE, Order.drain)


def restart(options: argparse.Namespace) -> int:
    load_config(options.home / CONFIG_FILE)  # what can't be used is told before anything ends
    return _end(options.home / STATE, Order.restart, ", then it begins anew")


def _end(folder: Path, order: Order, afterwards: str = "") -> int:
    if not is_taken(folder):
        print(f"no worker runs with {folder}", file=sys.stderr)
        return ExitCode.FAILED
    return _order(folder, Given(order=order), "", afterwards)


def _order(folder: Path, given: Given, later: str, afterwards: str = "") -> int:
    """Give an order, and wait a little until the worker answers that it does it.

    `later` is told where no worker runs, `afterwards` behind the answer of one.
    """
    orders = Orders(folder)
    try:
        make_private(folder)
        orders.give(given)
    except OSError as error:
        print(f"{folder}: {error.strerror}; make it writable for you", file=sys.stderr)
        return ExitCode.DISK
    if not is_taken(folder):
        print(f"no worker runs with {folder}; {later}")
        return ExitCode.OK
    print(f"the worker is {as_typed(_wait_for_answer(folder, given))}{afterwards}")
    return ExitCode.OK


def _wait_for_answer(folder: Path, given: Given) -> str:
    """What the worker answers, once it does as it was told or has had time enough."""
    began, orders = time.monotonic(), Orders(folder)
    while (answer := _doing(folder)) not in _DOING[given.order]:
        if given.order is Order.serve and (told := _told_by_others(orders)):
            return f"still {answer}: {told}"
        waited = time.monotonic() - began
        if waited > (START_SECONDS if answer == STARTING else ANSWER_SECONDS):
            return f"{answer}; it will do that as soon as it can"
        if not orders.is_given(given.order):  # one that has just begun forgets what was before it
            orders.give(given)
        time.sleep(ANSWER_SECONDS / 50)
    return answer


def _told_by_others(orders: Orders) -> str:
    """Why it is still paused where its owner's own pause is over; "" where that is not known."""
    told = orders.answered()
    pauses = told.pauses if told else ()
    if any(each.cause is PauseCause.owner for each in pauses):
        return ""
    return "; ".join(each.told for each in pauses)


def _doing(folder: Path) -> str:
    """What the folder's worker said last. That it has ended counts once it has let go of the
    folder: until then, that may be the word of an earlier one."""
    told = Orders(folder).answered()
    answer = told.doing if told else STARTING
    return STARTING if answer == ENDED and is_taken(folder) else answer


# What a worker answers that does as it was told.
_DOING = {
    Order.serve: (SERVING, MAINTENANCE, STARTING, WAITING),
    Order.pause: ("pausing", "paused", WAITING),
    Order.drain: ("draining", ENDED),
    Order.restart: ("draining", ENDED, STARTING),
}


def status(options: argparse.Namespace) -> int:
    """What the worker does and has done; the exit code says which of the kinds of state it is."""
    folder = options.home / STATE
    while True:
        overview = _overview(folder)
        totals = _totals(folder)
        if options.json:
            print(json.dumps(_as_json(overview, totals)), flush=True)
        else:
            _print_status(overview, totals)
        if not options.watch:
            return _exit_code(overview)
        time.sleep(WATCH_SECONDS)
        if not options.json:
            print()


def _overview(folder: Path) -> Overview:
    """With NOT_RUNNING where no worker runs."""
    if not is_taken(folder):
        return Overview(doing=NOT_RUNNING)
    told = Orders(folder).answered()
    doing = _doing(folder)
    return told if told and told.doing == doing else Overview(doing=doing)


def _totals(folder: Path) -> Totals | None:
    return read_totals(folder / LEDGER) if (folder / LEDGER).is_file() else None


def _exit_code(overview: Overview) -> ExitCode:
    if overview.doing == NOT_RUNNING:
        return ExitCode.FAILED
    if overview.doing in ("pausing", "paused"):
        return ExitCode.PAUSED
    is_hindered = overview.why or any(other.why for other in overview.others)
    return ExitCode.HINDERED if is_hindered else ExitCode.OK


def _as_json(overview: Overview, totals: Totals | None) -> dict[str, object]:
    """The overview's fields, and what the ledger has counted since it was begun."""
    told = {**overview.model_dump(), "devices": list(map(_device_as_json, overview.devices))}
    if totals is None:
        return {**told, "ledger": None}
    images = totals.of[Kind.image]
    ledger = {
        "images": images.ends,
        "others": {kind: each.ends for kind, each in totals.others.items()},
        "kudos": totals.kudos,
        "in_hand": totals.open,
        "lost_pops": totals.lost_pops,
        "hour_images": images.hour_done,
        "hour_kudos": images.hour_kudos,
        "kinds": {
            kind: {
                "kudos": each.kudos,
                "in_hand": each.open,
                "hour_done": each.hour_done,
                "hour_kudos": each.hour_kudos,
            }
            for kind, each in totals.of.items()
        },
    }
    return {**told, "ledger": ledger}


def _device_as_json(device: DeviceState) -> dict[str, object]:
    """With what its driver says at this moment."""
    card = read_card(device.uuid)
    return {
        **asdict(device),
        "memory_bytes": card.memory.total_bytes if card else None,
        "free_bytes": card.memory.free_bytes if card else None,
        "load_percent": card.load_percent if card else None,
        "celsius": card.celsius if card else None,
        "watts": card.watts if card else None,
    }


def _print_status(overview: Overview, totals: Totals | None) -> None:
    console = make_console()
    for heading, told in _lines(overview, totals):
        console.print(f"{heading + ':' if heading else '':{WIDTH}}{told}", soft_wrap=True)
    if totals is not None:
        print_totals(console, totals)


def _lines(overview: Overview, totals: Totals | None) -> list[tuple[str, str]]:
    since = f", for {_duration(overview.at - overview.began)}" if overview.began else ""
    lines = [("worker", f"{overview.doing}{since}")]
    if overview.why:
        lines.append(("", as_typed(overview.why)))
    if job := overview.running:
        lines.append(("now", _told_of(job)))
    if others := [each for each in overview.jobs if each is not job]:
        lines.append(("beside it", _by_stage(others)))
    cards = [each for each in overview.devices if each.uuid]
    lines += [("" if n else "cards", _told_of_device(each)) for n, each in enumerate(cards)]
    lines += [(f"{other.kind}s", _told_of_kind(other)) for other in overview.others]
    if totals is not None and overview.doing != NOT_RUNNING:
        done = counted({kind: each.hour_done for kind, each in totals.seen.items()})
        kudos = sum(each.hour_kudos for each in totals.of.values())
        lines.append(("the last hour", f"{done}, {kudos:.2f} kudos"))
    return lines


def _told_of(job: JobOverview) -> str:
    size = f" {job.width}x{job.height}" if job.width else ""
    step = f", step {job.step} of {job.steps}" if job.steps else ""
    left = f", about {_duration(job.seconds_left)} left" if job.seconds_left is not None else ""
    loras = f", LoRAs: {', '.join(job.loras)}" if job.loras else ""
    return f"{job.model}{size}{step}{left}{loras}"


def _told_of_device(device: DeviceState) -> str:
    card = read_card(device.uuid)
    if card is None:
        return f"{device.name}: {device.words}; its driver does not answer"
    gib = 1 << 30
    memory = f"{card.memory.free_bytes / gib:.1f} of {card.memory.total_bytes / gib:.1f} GiB free"
    heat = f", {card.celsius} °C" if card.celsius is not None else ""
    return f"{device.name}: {device.words}; {memory}{heat}"


def _told_of_kind(other: KindOverview) -> str:
    why = f"; {as_typed(other.why)}" if other.why else ""
    return f"{other.figures}, as {other.name!r}{why}"


def _by_stage(jobs: list[JobOverview]) -> str:
    """How many jobs are at which stage, in the order in which the stages come."""
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.stage] = counts.get(job.stage, 0) + 1
    return ", ".join(f"{count} {stage}" for stage, count in counts.items())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    told = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(told[:2]) or "0 s"


COMMANDS = {"status": status, "pause": pause, "resume": resume, "restart": restart, "drain": drain}

"""The `worker` command: the horde's record of this worker, as its owner sees and changes it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from html import unescape

from worker.cli.exit_codes import ExitCode
from worker.command_line import as_typed
from worker.config.keys import BridgeConfig
from worker.errors import UsageError
from worker.horde.accounts import ChangedWorker, WorkerChanges, WorkerRecord
from worker.horde.client import HordeClient
from worker.horde.kinds import Kind, names_of
from worker.horde.refusals import END_MAINTENANCE
from worker.line.popper import insist_on_own_name
from worker.service.assembly import make_client
from worker.service.terminal import make_console

MAX_MESSAGE_LENGTH, MAX_INFO_LENGTH = 300, 1000  # of the horde
NO_TEAM = "none"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def run_worker_command(config: BridgeConfig, options: argparse.Namespace) -> int:
    """Show the record, or make the changes that `options` name. Raises HordeError, UsageError.

    The horde keeps texts as HTML, and they are shown as their authors wrote them.
    """
    console = make_console(soft_wrap=True)
    with make_client(config) as client:
        changes = _changes(client, options)
        kind, name = next(iter(names_of(config).items()))
        record = _own_record(client, name, kind)
        if record is None:
            told = "start the worker once: its first pop makes it"
            console.print(f"the horde knows no worker {name!r}; {told}")
            return ExitCode.FAILED
        if changes.body():
            for line in _changed(client.change_worker(record.id, changes)):
                console.print(unescape(line))
        else:
            for name, value in _shown(record):
                console.print(f"{name + ':':14}{unescape(value)}")
    return ExitCode.OK


def _own_record(client: HordeClient, name: str, kind: Kind) -> WorkerRecord | None:
    account = client.whoami()
    record = client.worker_by_name(name, account)
    insist_on_own_name(account, record, kind)
    return record


def _changes(client: HordeClient, options: argparse.Namespace) -> WorkerChanges:
    if options.message is not None and options.maintenance != "on":
        raise UsageError("--message: it is told while maintenance is on; add --maintenance on")
    return WorkerChanges(
        maintenance=None if options.maintenance is None else options.maintenance == "on",
        maintenance_message=_short("--message", options.message, MAX_MESSAGE_LENGTH),
        info=_short("--info", options.info, MAX_INFO_LENGTH),
        team=None if options.team is None else _team(client, options.team),
    )


def _short(option: str, text: str | None, most: int) -> str | None:
    if text is not None and len(text) > most:
        raise UsageError(f"{option}: {len(text)} characters; the horde keeps {most} at most")
    return text


def _team(client: HordeClient, wanted: str) -> str:
    """The id of the team of this name or id; "" for none."""
    if wanted.lower() in ("", NO_TEAM):
        return ""
    if _UUID.fullmatch(wanted):
        return wanted.lower()
    teams = client.teams()
    for team in teams:
        if wanted.casefold() in (team.id.casefold(), unescape(team.name).casefold()):
            return team.id
    names = ", ".join(sorted(unescape(team.name) for team in teams)) or "this horde has none"
    raise UsageError(f"--team {wanted[:80]!r}: there is no such team; there are: {names[:400]}")


def _changed(now: ChangedWorker) -> Iterator[str]:
    if now.maintenance is not None:
        yield f"maintenance is now: {'on' if now.maintenance else 'off'}"
    if now.info is not None:
        yield f"info is now: {now.info or 'none'}"
    if now.team is not None:
        yield f"team is now: {now.team}"
    if now.maintenance:
        yield f"The horde gives this worker your own jobs alone; {as_typed(END_MAINTENANCE)}"


def _shown(record: WorkerRecord) -> Iterator[tuple[str, str]]:
    team = record.team.name if record.team else None
    yield "worker", record.name
    yield "id", record.id
    yield "online", "yes" if record.online else "no"
    yield "maintenance", f"on; {as_typed(END_MAINTENANCE)}" if record.maintenance_mode else "off"
    yield "info", record.info or "none"
    yield "team", team or NO_TEAM
    yield "trusted", "yes" if record.trusted else "no"
    yield "fulfilled", f"{record.requests_fulfilled or 0} images"
    yield "uncompleted", f"{record.uncompleted_jobs or 0} images"
    yield "kudos", f"{record.kudos_rewards or 0:.2f}"
    yield "performance", record.performance or "not known yet"

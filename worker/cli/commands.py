"""What each command does, and how its end becomes a line and an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from hordelib.errors import HordelibError
from hordelib.files.whole_files import anybody_may_write, close_to_others
from worker.children.signals import StopSignals
from worker.cli.check import Verdict, findings
from worker.cli.exit_codes import ExitCode, exit_code
from worker.cli.first_use import ensure_comfyui
from worker.cli.models_command import fetch_annotators, fetch_safety, run_models_command
from worker.cli.notify_command import notify
from worker.cli.report import report
from worker.cli.running_worker import drain, pause, resume, status
from worker.cli.setup_command import run_setup
from worker.cli.worker_command import run_worker_command
from worker.command_line import as_typed
from worker.config.config import load_config, models_place
from worker.config.keys import BridgeConfig
from worker.config.old_keys import in_short
from worker.errors import ConfigError, NotAllowed, WorkerError
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.offer import find_capabilities, introduce
from worker.models.on_disk import DISK_FLOOR_BYTES
from worker.models.opening import Models
from worker.notices.notifier import Notifier, seen_of
from worker.notices.posting import NOT_INSTALLED, is_installed
from worker.page.app import Watched
from worker.page.first_page import is_to_be_set_up, set_up_by_page
from worker.page.server import page_of
from worker.safety.gallery import Gallery
from worker.safety.policy import unfound
from worker.service.application_view import Shown, make_display
from worker.service.assembly import (
    OURS,
    Children,
    make_adapters,
    make_bridge,
    make_intake,
    make_predictor,
)
from worker.service.card_power import limited_power
from worker.service.history import FILE as HISTORY
from worker.service.history import History
from worker.service.logs import LogWay, set_up_logging
from worker.service.machine import Machine
from worker.service.metrics import MetricsServer
from worker.service.orders import OF_ONE_LIFE, STARTING, Orders
from worker.service.overview import Overview
from worker.service.pauses import Pauses
from worker.service.releases import news
from worker.service.serve import serve
from worker.service.state_folder import STATE, StateFolder
from worker.service.terminal import make_console
from worker.service.updates import Updates
from worker.service.watches import watches_of

CONFIG_FILE = "bridgeData.yaml"
FIRST_MODELS = "models are read or downloaded, and it serves from the first one on"


def run_command(options: argparse.Namespace, signals: StopSignals) -> int:
    """Run `options.command` in the folder `options.home`; its exit code (worker.cli.exit_codes)."""
    options.home = options.home.expanduser().resolve()
    os.environ.setdefault("DREAMER_RUNTIME", str(options.home))  # where ComfyUI is looked for
    warnings.filterwarnings("ignore", module="PIL")  # of strangers' files; errors still count
    if options.command in _STOPPABLE:
        return exit_code_of(lambda: _STOPPABLE[options.command](options, signals))
    return exit_code_of(lambda: _COMMANDS[options.command](options))


def exit_code_of(command: Callable[[], int]) -> int:
    """What the command returns; an error is told in a line, as far as anybody can be told."""
    try:
        return command()
    except (WorkerError, HordelibError, OSError) as error:
        with suppress(OSError):  # the disk may be full on which the output is kept
            print(f"dreamer: {as_typed(_line(error))}", file=sys.stderr)
        return exit_code(error)
    finally:
        _let_go_of_output()


def _let_go_of_output() -> None:
    """Where nobody reads our output any more, Python's last flush must not be an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _line(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "bridgeData.yaml can't be used:\n  " + "\n  ".join(error.problems)
    if isinstance(error, NotAllowed):
        return f"the horde won't have this worker: {error}. Remedy: {error.remedy}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _demo(options: argparse.Namespace, signals: StopSignals) -> int:
    from worker.demo.run import run_demo  # no other command waits for the local horde's import
    from worker.demo.sample_requests import ALL, FEW

    console = make_console()
    ensure_comfyui(console)
    are_made = run_demo(options.home, console, ALL if options.all else FEW, signals)
    return ExitCode.OK if are_made else ExitCode.FAILED


def _run(options: argparse.Namespace, signals: StopSignals) -> int:
    config_file = options.home / CONFIG_FILE
    if is_to_be_set_up(config_file):
        set_up_by_page(config_file, options.home)
    config = load_config(config_file)
    with suppress(OSError):
        if config_file.exists() and close_to_others(config_file):
            print(f"{config_file}: others could read it; now only you can", file=sys.stderr)
    if config.comfyui_path is None and not config.scribe_only:
        ensure_comfyui(make_console())
    way = LogWay.json if options.log_json else LogWay.plain if options.plain else LogWay.auto
    documents = ModelsFolder.of(config, options.home).documents
    updates = Updates(config, options.home, lambda: news(config, documents))
    with updates.watched():
        run_worker(config, options.home, signals, way=way)
    if not signals.count:
        updates.go_on([*["--plain"] * options.plain, *["--log-json"] * options.log_json])
    return ExitCode.OK


def run_worker(
    config: BridgeConfig,
    home: Path,
    signals: StopSignals,
    children: Children = OURS,
    *,
    way: LogWay = LogWay.auto,
) -> None:
    """Serve as `config` says until a signal. Raises what ends it otherwise."""
    with (
        closing(StateFolder.open(home / STATE)) as state,
        Notifier(config, state.path).telling(_line) as notifier,
    ):
        orders = Orders(state.path)
        orders.begin()  # first of all: what the folder still says is an earlier life's
        console = make_console()
        set_up_logging(console, home / "logs" / "dreamer.log", way=way)
        log = logging.getLogger("worker")
        if state.trouble:
            log.error("%s; until then it takes no orders", state.trouble)
        unfound(config, home)  # raises where it has to, before models are downloaded in vain
        inventory = take_inventory(ModelsFolder.of(config, home))
        offering = ModelOffering(inventory)
        adapters = make_adapters(config, config.models_folder(home))
        if config.show_pictures:
            children = replace(children, gallery=Gallery())
        with (
            closing(Ledger(state.path / LEDGER)) as ledger,
            closing(History(state.path / HISTORY)) as history,
            page_of(
                Watched(
                    config,
                    home / CONFIG_FILE,
                    home,
                    offering,
                    adapters,
                    orders,
                    history,
                    children.gallery,
                )
            ),
        ):
            if inventory.coming:
                with suppress(OSError):
                    orders.answer(Overview(doing=STARTING, why=FIRST_MODELS))
            models = offering.first_models(lambda: not orders.is_given(*OF_ONE_LIFE))
            if orders.is_given(*OF_ONE_LIFE):
                orders.end()
                return
            _warn(config, home, models)
            intake = make_intake(config, home, models, adapters=adapters)
            journal = Journal(ledger, children.most_drops, make_predictor(state.path))
            bridge = make_bridge(config, home, models, journal, intake=intake, children=children)

            def look_after() -> None:
                state.keep()
                history.note(journal.view())

            log.info(
                "offering %s as %r",
                ", ".join(models.served) or "no pictures",
                config.dreamer_name,
            )
            pauses = Pauses(orders, watches_of(config))
            machine = Machine(config, home, DISK_FLOOR_BYTES)
            shown = Shown(journal, pauses, signals, lambda: bridge.models, machine)
            metrics = make_metrics(config, orders)
            seen = seen_of(config, home, orders, intake.offered, journal)
            with (
                limited_power(config.card_power_limit, state.path),
                offering.kept_up(intake.offered),
                pauses.watched(),
                metrics.served(),
                notifier.watching(seen),
            ):
                serve(
                    bridge,
                    make_display(console, shown, config.stats_output_frequency, way),
                    signals=signals,
                    pauses=pauses,
                    look_after=(look_after, metrics.beat),
                )


def _warn(config: BridgeConfig, home: Path, models: Models) -> None:
    log = logging.getLogger("worker")
    for line in warnings_of(config, home, models):
        log.warning(as_typed(line))
    if kinds := unserved(config, home, models):
        log.info("not offered: %s (check says why)", ", ".join(kinds))


def make_metrics(config: BridgeConfig, orders: Orders) -> MetricsServer:
    key = config.metrics_key.get_secret_value() if config.metrics_key else ""
    return MetricsServer(config.metrics or "", key, orders.answered)


def warnings_of(config: BridgeConfig, home: Path, models: Models) -> list[str]:
    """What the owner should know before it starts. Raises JudgeUnusable as `safety` says."""
    lacking = [
        f"{flag}: true, and not offered; check says what is missing"
        for flag in unserved(config, home, models)
        if flag in config.model_fields_set
    ]
    open_to_all = [
        f"{folder}: anybody on this machine can change what lies there: chmod o-w {folder}"
        for folder in (home.resolve(), config.models_folder(home))
        if anybody_may_write(folder)
    ]
    how = introduce(config, home, models)
    lost = f"{how.lost_in_short}; check tells more. Remedy: {how.remedy}" if how.lost else ""
    lines = (
        *in_short(config.notes),
        *models.problems,
        *lacking,
        lost,
        *open_to_all,
        f"notify has no effect: {NOT_INSTALLED}" if config.notify and not is_installed() else "",
        unfound(config, home),
    )
    return [line for line in lines if line]


def unserved(config: BridgeConfig, home: Path, models: Models) -> list[str]:
    """The keys of the kinds of jobs that can't be offered, though nobody has refused them."""
    if not config.makes_pictures:
        return []
    return [each.flag for each in find_capabilities(config, home, models) if each.missing]


def _setup(options: argparse.Namespace) -> int:
    return run_setup(options.home / CONFIG_FILE, options)


def _sandbox(options: argparse.Namespace) -> int:
    from worker.demo.run import REFERENCE
    from worker.sandbox import serve as serve_sandbox

    serve_sandbox(REFERENCE, options.port)
    return ExitCode.OK


def _fetch(options: argparse.Namespace) -> int:
    config_file = options.home / CONFIG_FILE
    if options.safety:
        return fetch_safety(ModelsFolder.of(models_place(config_file), options.home))
    return fetch_annotators(ModelsFolder.of(load_config(config_file), options.home))


def _models(options: argparse.Namespace) -> int:
    folder = ModelsFolder.of(load_config(options.home / CONFIG_FILE), options.home)
    return run_models_command(folder, options)


def _worker(options: argparse.Namespace) -> int:
    return run_worker_command(load_config(options.home / CONFIG_FILE), options)


def _notify(options: argparse.Namespace) -> int:
    return notify(load_config(options.home / CONFIG_FILE))


def _check(options: argparse.Namespace) -> int:
    console = make_console(soft_wrap=True)
    styles = {
        Verdict.ok: "green",
        Verdict.failed: "bold red",
        Verdict.warning: "bold yellow",
        Verdict.skipped: "dim",
    }
    code = ExitCode.OK
    for finding in findings(options.home, options.home / CONFIG_FILE):
        console.print(f"{finding.verdict:8}", style=styles[finding.verdict], end="")
        console.print(f"{finding.name:23}{as_typed(finding.detail)}")
        if finding.remedy:
            console.print(f"{'':31}remedy: {as_typed(finding.remedy)}")
        if finding.verdict is Verdict.failed:
            code = ExitCode.FAILED
    return code


_STOPPABLE = {"demo": _demo, "run": _run}
_COMMANDS = {
    "check": _check,
    "pause": pause,
    "report": report,
    "resume": resume,
    "drain": drain,
    "status": status,
    "fetch": _fetch,
    "models": _models,
    "notify": _notify,
    "sandbox": _sandbox,
    "setup": _setup,
    "worker": _worker,
}

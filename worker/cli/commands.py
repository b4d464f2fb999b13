"""What each command does, and how its end becomes a line and an exit code.

A command imports what it needs when it is chosen: `status` waits for no web server and no engine.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress

from hordelib.errors import HordelibError
from hordelib.files.whole_files import close_to_others
from worker.children.signals import StopSignals
from worker.cli.exit_codes import ExitCode, exit_code, line_of
from worker.command_line import as_typed
from worker.config.config import load_config, models_place
from worker.config.document import CONFIG_FILE
from worker.errors import WorkerError


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
            print(f"dreamer: {as_typed(line_of(error))}", file=sys.stderr)
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


def _demo(options: argparse.Namespace, signals: StopSignals) -> int:
    from worker.cli.first_use import ensure_comfyui
    from worker.demo.run import run_demo
    from worker.demo.sample_requests import ALL, FEW
    from worker.service.terminal import make_console

    console = make_console()
    ensure_comfyui(console)
    are_made = run_demo(options.home, console, ALL if options.all else FEW, signals)
    return ExitCode.OK if are_made else ExitCode.FAILED


def _run(options: argparse.Namespace, signals: StopSignals) -> int:
    from worker.cli.serving import run_lives
    from worker.page.first_page import is_to_be_set_up, set_up_by_page

    config_file = options.home / CONFIG_FILE
    if is_to_be_set_up(config_file):
        set_up_by_page(config_file, options.home)
    with suppress(OSError):
        if config_file.exists() and close_to_others(config_file):
            print(f"{config_file}: others could read it; now only you can", file=sys.stderr)
    run_lives(lambda: _live(options, signals), options.home, signals)
    return ExitCode.OK


def _live(options: argparse.Namespace, signals: StopSignals) -> None:
    """One life of a worker, with what the configuration says at its beginning."""
    from worker.cli.first_use import ensure_comfyui
    from worker.cli.serving import run_worker
    from worker.page.waiting_page import Ended, wait_for_safety
    from worker.service.logs import LogWay
    from worker.service.terminal import make_console
    from worker.service.updates import updates_of

    config = load_config(options.home / CONFIG_FILE)
    if wait_for_safety(config, options.home, signals) is Ended.by_owner:
        return
    if config.comfyui_path is None and not config.scribe_only:
        ensure_comfyui(make_console())
    way = LogWay.json if options.log_json else LogWay.plain if options.plain else LogWay.auto
    updates = updates_of(config, options.home)
    with updates.watched():
        run_worker(config, options.home, signals, way=way, updates=updates)
    if not signals.count:
        updates.go_on([*["--plain"] * options.plain, *["--log-json"] * options.log_json])


def _setup(options: argparse.Namespace) -> int:
    from worker.cli.setup_command import run_setup

    return run_setup(options.home / CONFIG_FILE, options)


def _sandbox(options: argparse.Namespace) -> int:
    from worker.demo.run import REFERENCE
    from worker.sandbox import serve as serve_sandbox

    serve_sandbox(REFERENCE, options.port)
    return ExitCode.OK


def _fetch(options: argparse.Namespace) -> int:
    from worker.cli.models_command import fetch_annotators, fetch_safety
    from worker.models.inventory import ModelsFolder

    config_file = options.home / CONFIG_FILE
    if options.safety:
        return fetch_safety(ModelsFolder.of(models_place(config_file), options.home))
    return fetch_annotators(ModelsFolder.of(load_config(config_file), options.home))


def _models(options: argparse.Namespace) -> int:
    from worker.cli.models_command import run_models_command
    from worker.models.inventory import ModelsFolder

    folder = ModelsFolder.of(load_config(options.home / CONFIG_FILE), options.home)
    return run_models_command(folder, options)


def _worker(options: argparse.Namespace) -> int:
    from worker.cli.worker_command import run_worker_command

    return run_worker_command(load_config(options.home / CONFIG_FILE), options)


def _notify(options: argparse.Namespace) -> int:
    from worker.cli.notify_command import notify

    return notify(load_config(options.home / CONFIG_FILE))


def _check(options: argparse.Namespace) -> int:
    from worker.cli.check import Verdict, findings
    from worker.service.terminal import make_console

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
        console.print(f"{finding.name:26}{as_typed(finding.detail)}")
        if finding.remedy:
            console.print(f"{'':34}remedy: {as_typed(finding.remedy)}")
        if finding.verdict is Verdict.failed:
            code = ExitCode.FAILED
    return code


def _running_worker(options: argparse.Namespace) -> int:
    from worker.cli.running_worker import COMMANDS

    return COMMANDS[options.command](options)


def _report(options: argparse.Namespace) -> int:
    from worker.cli.report import report

    return report(options)


_STOPPABLE = {"demo": _demo, "run": _run}
_COMMANDS = {
    "check": _check,
    "pause": _running_worker,
    "report": _report,
    "resume": _running_worker,
    "drain": _running_worker,
    "restart": _running_worker,
    "status": _running_worker,
    "fetch": _fetch,
    "models": _models,
    "notify": _notify,
    "sandbox": _sandbox,
    "setup": _setup,
    "worker": _worker,
}

"""The command line: `python -m worker`, or `dreamer` where the project is installed with pip.

Needs nothing but Python until a command runs, so that it can explain itself before the set-up.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from worker.children.signals import StopSignals
from worker.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    signals = StopSignals.caught()
    options = make_parser().parse_args(argv)
    os.umask(os.umask(0o022) | 0o002)  # no file of ours is for anybody to write, whatever they ask

    def run() -> int:
        from worker.cli.commands import run_command

        return run_command(options, signals)

    return stoppable(run, signals, is_service=options.command == "run")


def stoppable(run: Callable[[], int], signals: StopSignals, *, is_service: bool) -> int:
    """What `run` returns, or the exit code of a signal; none that comes later changes it.

    A service is there to be stopped: its first signal is no interruption.
    """
    try:
        with signals.interrupting():
            return run()
    except KeyboardInterrupt:
        with suppress(OSError):
            print("stopped", file=sys.stderr)
        return 0 if is_service and signals.count <= 1 else 130
    finally:
        signals.end()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dreamer", description="Dreamer serves image jobs to the AI Horde."
    )
    parser.add_argument("--version", action="version", version=f"Dreamer {VERSION}")
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(),
        help="folder of bridgeData.yaml, models and logs (default: the current folder)",
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    demo = commands.add_parser("demo", help="serve a local horde's jobs and show the pictures")
    demo.add_argument("--all", action="store_true", help="one for each thing that a job can ask")
    run = commands.add_parser("run", help="serve the horde as bridgeData.yaml says")
    run.add_argument("--plain", action="store_true", help="lines of text, also on a terminal")
    run.add_argument("--log-json", action="store_true", help="each line as JSON, for programs")
    status = commands.add_parser("status", help="what the worker is doing, and what it has done")
    status.add_argument("--json", action="store_true", help="for programs: docs/service.md")
    status.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    pause = commands.add_parser("pause", help="take no more jobs, and free the graphics card")
    pause.add_argument(
        "time", nargs="*", metavar="TIME", help="2h, until 08:00, until tomorrow; else until resume"
    )
    pause.add_argument("--now", action="store_true", help="do not finish the jobs in hand before")
    commands.add_parser("resume", help="serve again after pause")
    commands.add_parser("drain", help="finish what is in hand, then end the worker")
    commands.add_parser("restart", help="finish what is in hand, then begin anew")
    commands.add_parser("notify", help="send a trial notice to the addresses of notify")
    report = commands.add_parser(
        "report", help="write a zip for those who help you, without keys, names and prompts"
    )
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="default: dreamer-report-TIME.zip in --home"
    )
    report.add_argument("--yes", action="store_true", help="write it without asking first")
    fetch = commands.add_parser(
        "fetch", help="download the weights of the first nine control types (1.9 GB)"
    )
    fetch.add_argument(
        "--safety", action="store_true", help="those of horde_safety instead (1.6 GB)"
    )
    sandbox = commands.add_parser("sandbox", help="a local horde alone, to try clients and workers")
    sandbox.add_argument("--port", type=int, default=7001, help="on loopback (default: 7001)")
    _add_worker(commands.add_parser("worker", help="show or change the horde's record of yours"))
    _add_models(commands.add_parser("models", help="the models: list, add, remove, verify …"))
    _add_setup(commands.add_parser("setup", help="ask, look around, write bridgeData.yaml"))
    commands.add_parser("check", help="check your setup, and say how to fix what is wrong")
    return parser


def _add_setup(parser: argparse.ArgumentParser) -> None:
    parser.description = "Asks what it is not told here, proposes models, and writes the file."
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--api-key", metavar="KEY", help="of your AI Horde account")
    key.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file that holds it")
    parser.add_argument("--name", help="the worker's name, unique in the whole horde")
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=("horde", "shared", "nights"),
        help="what the machine serves: the horde alone, you too, or the horde by night",
    )
    parser.add_argument("--nsfw", choices=("yes", "no"), help="whether to take such requests")
    parser.add_argument("--models", nargs="+", metavar="NAME", help=_NAME)
    parser.add_argument("--yes", action="store_true", help="take what is proposed, ask nothing")
    parser.add_argument("--change", action="store_true", help="change a file that is there")
    parser.add_argument("--no-speed-test", action="store_true", help="download nothing (32 MB)")
    parser.add_argument("--cache-home", metavar="FOLDER", help="the folder that holds models/")
    parser.add_argument("--horde-url", metavar="URL", help="of another horde than aihorde.net")
    parser.add_argument("--model-reference", metavar="URL", help="another list of models")


def _add_worker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--maintenance",
        choices=("on", "off"),
        help="on: no jobs but your own are given to it",
    )
    parser.add_argument("--message", metavar="TEXT", help="why it is in maintenance")
    parser.add_argument("--info", metavar="TEXT", help="what everybody may read about it")
    parser.add_argument("--team", metavar="NAME", help="the team that it earns for, or none")


def _add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", dest="action", required=True, metavar="ACTION")
    for action, (told, names) in _ACTIONS.items():
        command = actions.add_parser(action, help=told)
        command.add_argument("--json", action="store_true", help="for programs")
        if names:
            command.add_argument("names", nargs=names, metavar="NAME", help=_NAME)
        if action == "list":
            command.add_argument(
                "--all", action="store_true", help="also list models you could add"
            )
        if action == "add":
            command.add_argument("--dry-run", action="store_true", help="only say what would be")
        if action == "top":
            command.add_argument("count", nargs="?", type=int, default=20, help="default: 20")


_NAME = "as the horde spells it, or a group such as 'top 5', 'all sdxl' or 'controlnets'"
_ACTIONS = {  # what it does, and how many names it takes
    "list": ("what is chosen and what is on disk", None),
    "add": ("download, by default what bridgeData.yaml chooses; begun files are continued", "*"),
    "remove": ("delete files", "+"),
    "verify": ("read files again and compare them with the reference, by default all", "*"),
    "top": ("the most used models of the last month", None),
    "disk": ("what takes how much of the disk", None),
}


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `python -m worker`, or `dreamer` where the project is installed with pip.

Needs nothing but Python until a command runs, so that it can explain itself before the set-up.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    options = _parser().parse_args(argv)
    try:
        from worker.commands import run_command

        return run_command(options)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dreamer", description="Dreamer serves image jobs to the AI Horde."
    )
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
    commands.add_parser("run", help="serve the horde as bridgeData.yaml says")
    commands.add_parser("status", help="what the worker is doing, and what it has done")
    commands.add_parser("pause", help="finish what is in hand, free the device, take no more jobs")
    commands.add_parser("resume", help="serve again after pause")
    commands.add_parser("drain", help="finish what is in hand, then end the worker")
    commands.add_parser("fetch", help="download the weights of ControlNet's annotators (1.5 GB)")
    sandbox = commands.add_parser("sandbox", help="a local horde alone, to try clients and workers")
    sandbox.add_argument("--port", type=int, default=7001, help="on loopback (default: 7001)")
    commands.add_parser("check", help="see whether everything is there that run needs")
    return parser


if __name__ == "__main__":
    sys.exit(main())

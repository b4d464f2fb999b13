"""A worker whose children are stand-ins: `python -m tests.chaos.worker_process HOME SEED`."""

from __future__ import annotations

import sys
from pathlib import Path

from worker.__main__ import stoppable
from worker.children.signals import StopSignals


def main(home: Path, seed: int) -> int:
    signals = StopSignals.caught()

    def run() -> int:
        from tests.chaos.stand_in import LIVES, Temper, children
        from worker.cli.commands import CONFIG_FILE, run_worker
        from worker.config.config import load_config

        temper = Temper(seed, home / LIVES)
        run_worker(load_config(home / CONFIG_FILE), home, signals, children(temper))
        return 0

    return stoppable(run, signals, is_service=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))

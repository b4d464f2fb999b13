"""A worker whose children are stand-ins: `python -m tests.chaos.worker_process HOME SEED`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.chaos.stand_in import LIVES, Temper, children
from worker.commands import CONFIG_FILE, run_worker
from worker.config import load_config


def main(home: Path, seed: int) -> None:
    temper = Temper(seed, home / LIVES)
    run_worker(load_config(home / CONFIG_FILE), home, children(temper))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

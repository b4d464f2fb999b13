"""A worker of stand-ins: `python -m tests.chaos.worker_process HOME SEED ENGINES`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from worker.__main__ import stoppable
from worker.children.signals import StopSignals


def main(home: Path, seed: int, engines: int) -> int:
    signals = StopSignals.caught()

    def run() -> int:
        from benchmarks.measure.simulated_children import ANY_NUMBER
        from tests.chaos import stand_in
        from worker.cli.commands import exit_code_of
        from worker.cli.serving import run_worker
        from worker.config.config import load_config
        from worker.config.document import CONFIG_FILE
        from worker.service.assembly import Children

        temper = stand_in.Temper(seed, home / stand_in.LIVES)
        mains: dict[str, Any] = {
            "engine": partial(stand_in.engine, temper),
            "judge": partial(stand_in.judge, temper),
        }
        # It puts up with any failures.
        children = Children(**mains, processors=engines, most_drops=ANY_NUMBER)

        def serve() -> int:
            run_worker(load_config(home / CONFIG_FILE), home, signals, children)
            return 0

        return exit_code_of(serve)

    return stoppable(run, signals, is_service=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))

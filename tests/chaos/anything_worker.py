"""The demo's worker, which offers all that the demo's files can show:
`python -m tests.chaos.anything_worker HOME URL`."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from pathlib import Path

from worker.__main__ import stoppable
from worker.children.signals import StopSignals


def main(home: Path, url: str) -> int:
    signals = StopSignals.caught()

    def run() -> int:
        from worker.cli.commands import exit_code_of
        from worker.demo.run import REFERENCE, _make_bridge, demo_config
        from worker.jobs.journal import Journal
        from worker.jobs.ledger import Ledger
        from worker.service.logs import set_up_logging
        from worker.service.serve import serve
        from worker.service.terminal import PlainView, make_console

        console = make_console()
        set_up_logging(console, home / "dreamer.log", logging.WARNING)

        def serve_until_told() -> int:
            with closing(Ledger(home / "ledger.sqlite")) as ledger:
                journal = Journal(ledger)
                config = demo_config(url, models=tuple(REFERENCE))
                bridge = _make_bridge(config, home, journal)
                serve(bridge, PlainView(journal), signals=signals)
            return 0

        return exit_code_of(serve_until_told)

    return stoppable(run, signals, is_service=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))

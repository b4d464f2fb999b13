"""The benchmarks by name."""

from __future__ import annotations

import os
import signal
import sys
import warnings

from benchmarks.card import card
from benchmarks.measure import engine, forms, judge, memory, pages, scale, seconds, switch, worker
from benchmarks.peers import compare
from benchmarks.results import report_command
from benchmarks.results.frame import Bench, run
from benchmarks.tuning import tune

_MODULES = (
    *(engine, worker, forms, compare, scale, memory, switch),
    *(judge, pages, seconds, tune, card),
)
BENCHES: dict[str, Bench] = {module.BENCH.name: module.BENCH for module in _MODULES}
REPORT = "report"
SAMPLERS = r"torchsde|comfy\.k_diffusion"
ALIASES = {"--tune": tune.BENCH.name}


def main(arguments: list[str]) -> int:
    asked = arguments[0] if arguments else ""
    name = ALIASES.get(asked, asked)
    if name == REPORT:
        columns = {bench.name: bench.columns for bench in BENCHES.values()}
        return report_command.main(arguments[1:], columns)
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name not in BENCHES:
        print(_usage(), file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", module=SAMPLERS)  # of rounding
    return run(BENCHES[name], arguments[1:])


def _usage() -> str:
    told = {name: bench.help for name, bench in BENCHES.items()}
    told[REPORT] = "shows the results of a run, or compares two"
    lines = (f"  {name:9} {text}" for name, text in told.items())
    return "\n".join(("usage: benchmark NAME [options]; NAME --help tells them", "", *lines))


def _interrupt(*_: object) -> None:
    """SIGTERM ends it as Ctrl-C does: with what is done, and without the processes it started."""
    raise KeyboardInterrupt


def _until_nobody_reads() -> int:
    """As `main`; where the reader of our output has gone (`| head`), there is no more to do."""
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the worker's first card is ours
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 1
    return code


if __name__ == "__main__":
    sys.exit(_until_nobody_reads())

"""The benchmarks by name."""

from __future__ import annotations

import sys

from benchmarks import engine, memory, report_command, tune, worker
from benchmarks.frame import Bench, run

BENCHES: dict[str, Bench] = {
    bench.name: bench for bench in (engine.BENCH, worker.BENCH, memory.BENCH, tune.BENCH)
}
REPORT = "report"
ALIASES = {"--tune": tune.BENCH.name}


def main(arguments: list[str]) -> int:
    asked = arguments[0] if arguments else ""
    name = ALIASES.get(asked, asked)
    if name == REPORT:
        columns = {bench.name: bench.columns for bench in BENCHES.values()}
        return report_command.main(arguments[1:], columns)
    if name not in BENCHES:
        print(f"usage: benchmark {{{','.join((*BENCHES, REPORT))}}} [--help]", file=sys.stderr)
        return 2
    return run(BENCHES[name], arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

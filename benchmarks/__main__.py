"""The benchmarks by name."""

from __future__ import annotations

import sys

from benchmarks import compare, engine, memory, worker
from benchmarks.frame import Bench, run

BENCHES: dict[str, Bench] = {
    bench.name: bench for bench in (engine.BENCH, worker.BENCH, compare.BENCH, memory.BENCH)
}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in BENCHES:
        print(f"usage: benchmark {{{','.join(BENCHES)}}} [--help]", file=sys.stderr)
        return 2
    return run(BENCHES[name], arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

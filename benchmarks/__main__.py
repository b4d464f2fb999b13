"""The benchmarks by name."""

from __future__ import annotations

import sys
import warnings

from benchmarks import engine, memory, seconds, worker
from benchmarks.frame import Bench, run

BENCHES: dict[str, Bench] = {
    bench.name: bench for bench in (engine.BENCH, worker.BENCH, memory.BENCH, seconds.BENCH)
}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in BENCHES:
        print(f"usage: benchmark {{{','.join(BENCHES)}}} [--help]", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", module="torchsde")  # of rounding; ComfyUI's samplers call it
    return run(BENCHES[name], arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

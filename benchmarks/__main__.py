"""The benchmarks by name."""

from __future__ import annotations

import sys

from benchmarks import memory

BENCHMARKS = {"memory": memory.main}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name not in BENCHMARKS:
        print(f"usage: benchmark {{{','.join(BENCHMARKS)}}} [--help]", file=sys.stderr)
        return 2
    return BENCHMARKS[name](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a step frees, the next one takes: in a process whose heap nobody else has used."""

from __future__ import annotations

import mmap
import subprocess
import sys

import pytest

STEPS = 20
STEPS_IN_A_THREAD = f"""
import resource, sys, threading
from hordelib.memory.heap import keep_heap

def step():
    return [bytearray(mib << 20) for mib in (1, 9, 17, 25)]

def pages_of_later_steps():
    step()
    first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({STEPS}):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)

if "kept" in sys.argv:
    keep_heap()
thread = threading.Thread(target=pages_of_later_steps)
thread.start()
thread.join()
"""


def pages_taken(*arguments: str) -> int:
    command = [sys.executable, "-c", STEPS_IN_A_THREAD, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_steps_take_no_new_pages_of_a_kept_heap() -> None:
    of_one_step = (52 << 20) // mmap.PAGESIZE
    assert pages_taken("kept") < of_one_step
    assert pages_taken() > of_one_step * STEPS / 2  # or there would be nothing to keep

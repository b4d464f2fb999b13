"""A signal that asks a worker to stop ends it with the promised code, whenever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.owner import PROJECT, Home, config, runtime, wait_until_caught
from worker.children.signals import STOP_SIGNALS, StopSignals
from worker.cli.exit_codes import ExitCode
from worker.sandbox import Sandbox


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_before_anything_is_imported_ends_the_worker_well(
    home: Home, horde: Sandbox, number: signal.Signals
):
    home.write(config(horde))
    with home.start("run") as worker:
        wait_until_caught(worker.pid, STOP_SIGNALS[-1])
        worker.send_signal(number)
        output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    assert output == "stopped\n"


# A program that is at its end already: its exit code is decided, and its clean-up takes a while.
AT_ITS_END = """
import atexit, os, signal, sys
from worker.__main__ import stoppable
from worker.children.signals import STOP_SIGNALS, StopSignals

def send_all():
    for number in STOP_SIGNALS:
        os.kill(os.getpid(), number)

atexit.register(send_all)
class AfterAll:
    def __del__(self, send=send_all):
        send()
sys.last = AfterAll()  # goes when Python has taken its own handlers away
sys.exit(stoppable(lambda: 7, StopSignals.caught(), is_service=True))
"""


def test_a_signal_at_the_very_end_does_not_change_the_exit_code():
    done = subprocess.run(
        [sys.executable, "-c", AT_ITS_END],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": runtime()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 7, done.stderr


def test_two_signals_interrupt_what_is_at_its_end():
    program = """
import time
from worker.__main__ import stoppable
from worker.children.signals import StopSignals
signals = StopSignals.caught()

def serve():
    with signals.counted():
        print("serving", flush=True)
        while not signals.count:
            signals.nap(10)
    print("ending", flush=True)
    time.sleep(60)
    return 0

raise SystemExit(stoppable(serve, signals, is_service=True))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "ending\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (ExitCode.INTERRUPTED, "stopped\n")


def test_what_came_before_interrupts_at_once():
    signals = StopSignals()
    signals.came()
    with pytest.raises(KeyboardInterrupt), signals.interrupting():
        time.sleep(60)
    signals.came()  # it interrupts nothing any more
    signals.close()
    assert signals.count == 2

"""A run's seconds are divided by the clock of the device that it ran on."""

from __future__ import annotations

from hordelib.comfyui.phases import OTHER, SAMPLING, TEXT, Stopwatch


class LateDevice:
    """Takes what it is told at once, and does it later: a mark is the moment that it gets there."""

    def __init__(self) -> None:
        self._done = 0.0

    def work(self, seconds: float) -> None:
        self._done += seconds

    def mark(self) -> float:
        return self._done

    def seconds(self, since: float, until: float) -> float:
        return until - since


def test_each_phase_has_what_the_device_did_for_it():
    device = LateDevice()
    stopwatch = Stopwatch(device)
    device.work(0.25)
    stopwatch.enter(TEXT)
    device.work(1.0)
    stopwatch.enter(SAMPLING)
    device.work(4.0)
    stopwatch.enter(TEXT)
    device.work(2.0)
    assert stopwatch.stop() == {OTHER: 0.25, TEXT: 3.0, SAMPLING: 4.0}

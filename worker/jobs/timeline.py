"""What the device does at each moment: exactly one phase, so that the phases sum to the wall time.

Any number of activities may be under way at once; the moment belongs to the first of them in the
order of `Phase`, and where there is none, the device has `no job`. A run belongs to `engine` until
it is over; then the engine's own times divide it, and what they leave unexplained stays `engine`.

The device is *busy* while it works on a job's prompts, steps, decoding or post-processing (`BUSY`).
Reading model files, passing messages and everything between two runs is not busy.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from enum import StrEnum


class Phase(StrEnum):
    """Where the time goes. The first of those that are under way counts."""

    TEXT = "text"  # prompts are encoded
    SAMPLING = "sampling"
    ENCODING = "encoding"  # source pictures
    DECODING = "decoding"
    POST = "post"  # upscalers, face fixers
    RUNNING = "running"  # one of the five above, from an engine that does not tell them apart
    LOADING = "loading"  # files of models are read
    ENGINE = "engine"  # all else between the engine's order and its answer
    STARTING = "starting"
    HANDING_OVER = "handing over"  # from the engine to the encoder, and the next job to the engine
    DELIVERING = "delivering"  # nothing more is made until something is delivered
    TAKING_IN = "taking in"  # the next job is read, and what it names is fetched
    POPPING = "popping"
    STOPPING = "stopping"
    PAUSED = "paused"
    NO_JOB = "no job"  # the horde has none for us, or is not asked yet


BUSY = frozenset(
    {Phase.TEXT, Phase.SAMPLING, Phase.ENCODING, Phase.DECODING, Phase.POST, Phase.RUNNING}
)
_ORDER = tuple(Phase)


class Timeline:
    """Written by the threads of a bridge, read by anybody. It begins when it is made."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: Counter[Phase] = Counter()
        self._seconds = dict.fromkeys(Phase, 0.0)
        self._divided = dict(self._seconds)
        self._since = clock()

    @contextmanager
    def during(self, phase: Phase) -> Generator[None]:
        self.begin(phase)
        try:
            yield
        finally:
            self.end(phase)

    def begin(self, phase: Phase) -> None:
        with self._lock:
            self._settle()
            self._under_way[phase] += 1

    def end(self, phase: Phase) -> None:
        with self._lock:
            self._settle()
            self._under_way[phase] -= 1

    def explain(self, seconds: Mapping[str, float]) -> None:
        """Divide what is booked as `engine`, after a run, by the engine's own times of that run.

        Names that are no phase count as `engine`. Never divides more than there is.
        """
        known = {Phase(name): each for name, each in seconds.items() if name in _NAMES}
        with self._lock:
            self._settle()
            there = self._seconds[Phase.ENGINE]
            share = min(1.0, there / (sum(known.values()) or 1.0))
            for phase, each in known.items():
                self._seconds[Phase.ENGINE] -= share * each
                self._seconds[phase] += share * each
            self._divided = dict(self._seconds)

    def divided(self) -> Mapping[Phase, float]:
        """As `seconds`, until the latest run was divided: between two of them, runs are whole."""
        with self._lock:
            return self._divided

    def seconds(self) -> Mapping[Phase, float]:
        """Of each phase until now; together the seconds since the beginning."""
        with self._lock:
            self._settle()
            return dict(self._seconds)

    def _settle(self) -> None:
        """Book the time since the last change to the phase that it belonged to."""
        now = self._clock()
        self._seconds[self._phase()] += now - self._since
        self._since = now

    def _phase(self) -> Phase:
        return next((phase for phase in _ORDER if self._under_way[phase]), Phase.NO_JOB)


_NAMES = frozenset(phase.value for phase in Phase)


def busy_share(seconds: Mapping[Phase, float]) -> float:
    """Of the time that these phases make up, how much the device was busy; 0 for no time."""
    whole = sum(seconds.values())
    return sum(seconds.get(phase, 0.0) for phase in BUSY) / whole if whole else 0.0

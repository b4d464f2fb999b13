"""Keeps up with the words that the horde's server knows: servers change while a worker runs."""

from __future__ import annotations

import logging
import threading

from worker.errors import HordeError
from worker.horde.client import HordeClient

log = logging.getLogger(__name__)

LOOK_SECONDS = 1800.0  # between two readings
TROUBLE_SECONDS = 60.0  # after one that failed


class Vocabulary:
    """Reads the server's description of itself, again and again, until `stopping`.

    `pauses`: seconds until the next reading, after one that worked and after one that failed.
    """

    def __init__(
        self,
        horde: HordeClient,
        stopping: threading.Event,
        *,
        pauses: tuple[float, float] = (LOOK_SECONDS, TROUBLE_SECONDS),
    ):
        self._horde = horde
        self._stopping = stopping
        self._pauses = pauses
        self._told = ""

    def keep_up(self) -> None:
        """Returns after the first reading; a thread of its own does the others, and pops wait for
        none of them."""
        pause = self._read()
        name = "vocabulary"
        threading.Thread(target=self._keep_reading, args=(pause,), name=name, daemon=True).start()

    def _keep_reading(self, pause: float) -> None:
        while not self._stopping.wait(pause):
            pause = self._read()

    def _read(self) -> float:
        """Seconds until the next reading."""
        try:
            self._horde.learn_words()
        except HordeError as error:
            self._tell(f"what the horde's server knows could not be read: {error}")
            return self._pauses[1]
        self._tell("")
        return self._pauses[0]

    def _tell(self, trouble: str) -> None:
        """Each trouble once, and its end: nothing but new kinds of jobs depends on it."""
        if trouble and not self._told:
            log.warning("%s; the newest kinds of jobs are not offered meanwhile", trouble)
        elif self._told and not trouble:
            log.info("what the horde's server knows can be read again")
        self._told = trouble

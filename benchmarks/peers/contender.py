"""A peer while it is compared: what it was given to do, and how it did."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.peers.process import PeerProcess
from benchmarks.peers.protocol import Answer, CannotDo, Job, PeerFailed, Setup
from benchmarks.peers.roster import Peer, started

START_SECONDS, TURN_SECONDS = 300.0, 600.0  # after which it is given up


@dataclass(slots=True)
class Contender:
    """`answers` are those to the turns of the present work; `error` is why it can't do it."""

    peer: Peer
    answers: list[Answer] = field(default_factory=list[Answer])
    error: str = ""
    process: PeerProcess | None = None

    def start(self, files: Setup, folder: Path, jobs: Sequence[Job]) -> None:
        """Start its process anew. The answer's seconds are those from there to the pictures."""
        self.close()
        if not self.error:
            with self._out_if_it_fails():
                self.process = started(self.peer, files, folder)
                answer = self.process.ask(jobs, START_SECONDS)
                seconds = time.perf_counter() - self.process.started
                self.answers.append(replace(answer, seconds=seconds))

    def begin(self) -> None:
        """Another work. Who is out stays out."""
        self.answers.clear()
        if self.process is not None:
            self.error = ""
            self.process.forget_peak()

    def take(self, jobs: Sequence[Job]) -> None:
        """Do a turn. Who could not do one of this work does no more of them."""
        if self.process is not None and not self.error:
            with self._out_if_it_fails():
                self.answers.append(self.process.ask(jobs, TURN_SECONDS))

    def peak_bytes(self) -> int | None:
        """Of main memory, since the work began."""
        return None if self.process is None else self.process.peak_bytes()

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None

    @contextmanager
    def _out_if_it_fails(self) -> Generator[None]:
        try:
            yield
        except CannotDo as error:
            self.error = str(error)
        except PeerFailed as error:
            self.error = str(error)
            self.close()

"""The bridge's side of the judge's child: no picture leaves without a verdict of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hordelib.errors import JudgeFailed
from hordelib.safety.verdict import Verdict
from worker.backoff import Backoff
from worker.children import judge_main
from worker.children.messages import Asked, Judged, JudgeSettings, Unjudged
from worker.children.supervisor import Limit, Supervisor
from worker.errors import JudgeUnusable

log = logging.getLogger(__name__)

MOST_FAILED_STARTS = 4  # in a row: two pictures' worth


@dataclass(frozen=True, slots=True)
class JudgePatience:
    """How long the child may take, in seconds, before it counts as hung and is killed."""

    start: float = 300  # horde_safety reads its weights and prepares some thousand phrases
    heartbeat: float = 15  # any word at all, once started
    picture: float = 60
    restarts: tuple[float, float] = (1.0, 30.0)  # between two of them: the first, the longest


class JudgeProcess:
    """One spawned child that judges pictures one after the other. Any thread may ask."""

    def __init__(
        self,
        settings: JudgeSettings,
        patience: JudgePatience | None = None,
        main: Callable[[Any, Any], None] = judge_main.main,
    ):
        self._patience = patience or JudgePatience()
        self._child = Supervisor(
            "judge", main, settings, log_file=settings.log_file, gone=JudgeUnusable
        )
        self._backoff = Backoff(*self._patience.restarts)
        self._asking = threading.Lock()
        self._failed_starts = 0  # in a row
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive

    def start(self) -> str:
        """Spawn the child and return its judges' names. Raises JudgeUnusable when it can't be."""
        with self._asking:
            self._stopping.clear()
            return self._start()

    def judge(self, job_id: str, index: int, webp: bytes, prompt: str) -> Verdict:
        """The verdict on image `index` of the job; `prompt` has the negative one after `###`.

        A child that dies or hangs is replaced, and asked once more. Raises JudgeFailed without a
        verdict: the picture is not to leave then. Raises JudgeUnusable where child after child
        has not even started: no picture would be judged any more.
        """
        asked = Asked(job_id, index, webp, prompt)
        with self._asking:
            try:
                return self._ask(asked)
            except JudgeUnusable as error:
                log.error("job %s, image %d: %s; a new judge is asked", job_id, index, error)
            try:
                return self._ask(asked)
            except JudgeUnusable as error:
                if self._failed_starts >= MOST_FAILED_STARTS:
                    raise
                raise JudgeFailed(f"image {index} could not be judged: {error}") from error

    def stop(self, timeout: float = 10) -> None:
        """End the child, which is to be asked by nobody any more; `judge` raises from then on."""
        self._stopping.set()
        self._child.stop(timeout)

    def kill(self) -> None:
        """End the child at once, from any thread; `judge` raises JudgeFailed from then on."""
        self._stopping.set()
        self._child.kill()

    def _revive(self) -> None:
        """Have a child to ask. Waits before it starts one in the place of one that died."""
        if not self._child.is_alive and not self._stopping.wait(self._backoff.delay()):
            self._start()
        if self._stopping.is_set():
            raise JudgeUnusable("the worker is stopping")

    def _start(self) -> str:
        self._failed_starts += 1
        names = self._child.start(self._patience.start)
        self._failed_starts = 0
        if self._stopping.is_set():  # `kill` came before there was this child
            self._child.kill()
        return names

    def _ask(self, asked: Asked) -> Verdict:
        self._revive()
        self._child.send(asked, self._patience.heartbeat)
        limit = Limit(self._patience.picture, "to judge a picture")
        report = self._child.receive(limit, silence=self._patience.heartbeat)
        if not isinstance(report, Judged | Unjudged):
            self._child.fail("the judge spoke garbage")
        if (report.job_id, report.index) != (asked.job_id, asked.index):
            self._child.fail(f"the judge spoke of job {report.job_id}, image {report.index}")
        if isinstance(report, Unjudged):
            raise JudgeFailed(f"image {asked.index} could not be judged: {report.reason}")
        self._backoff.reset()
        return report.verdict

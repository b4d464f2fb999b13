"""Judges beside each other, where one alone would hold up several cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Self

from hordelib.safety.verdict import Verdict
from worker.children import judge_main
from worker.children.judge import JudgeProcess
from worker.children.messages import JudgeSettings


class JudgePool:
    """Each picture goes to a judge that is free. Any thread may ask."""

    def __init__(self, judges: Sequence[JudgeProcess]):
        self._judges = judges
        self._free: SimpleQueue[JudgeProcess] = SimpleQueue()
        for judge in judges:
            self._free.put(judge)

    @classmethod
    def of_devices(
        cls,
        devices: int,
        settings: JudgeSettings,
        main: Callable[[Any, Any], None] = judge_main.main,
    ) -> Self:
        """As many as so many devices need and this machine's cores allow, each with its own log."""
        log = settings.log_file
        logs = [
            log.with_stem(f"{log.stem}-{number}") if number else log
            for number in range(judge_main.judge_count(devices, len(judge_main.cores())))
        ]
        return cls([JudgeProcess(replace(settings, log_file=each), main=main) for each in logs])

    def start(self) -> str:
        """All of them, at the same time; the names of the judges in each. Raises JudgeUnusable."""
        with ThreadPoolExecutor(len(self._judges)) as starters:
            names = list(starters.map(JudgeProcess.start, self._judges))
        return names[0]

    def judge(self, job_id: str, index: int, webp: bytes, prompt: str) -> Verdict:
        """As JudgeProcess.judge, by the first of them that is free."""
        judge = self._free.get()
        try:
            return judge.judge(job_id, index, webp, prompt)
        finally:
            self._free.put(judge)

    def stop(self) -> None:
        """They are to be asked by nobody any more; `judge` raises from then on."""
        with ThreadPoolExecutor(len(self._judges)) as enders:
            list(enders.map(JudgeProcess.stop, self._judges))

    def kill(self) -> None:
        """At once, from any thread; `judge` raises JudgeFailed from then on."""
        for judge in self._judges:
            judge.kill()

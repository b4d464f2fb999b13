"""The end of a job's way: its pictures become files, and each is judged, uploaded and submitted."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from hordelib.engine import Generation
from hordelib.job.notes import GenMetadata
from worker.errors import JudgeUnusable, WorkerError
from worker.jobs.journal import Journal
from worker.jobs.results import (
    UNMADE,
    Cleared,
    Failed,
    JobStage,
    Made,
    Result,
    Results,
    fault_reason,
)
from worker.jobs.work import Work
from worker.line.delivery import Delivery, Untold
from worker.safety.judging import Judging


class Finishing:
    """Brings the images of jobs to their ends.

    Several threads work here, and up to `abreast` of them at one job, so that its pictures are on
    their way at once too; with one thread more, no job holds up all others.

    Args:
        fail: is told what the worker can't go on with.
    """

    def __init__(
        self,
        judging: Judging,
        delivery: Delivery,
        journal: Journal,
        *,
        abreast: int,
        fail: Callable[[WorkerError], None],
    ):
        self._judging = judging
        self._delivery = delivery
        self._journal = journal
        self._abreast = abreast
        self._fail = fail
        self._turns: queue.SimpleQueue[tuple[str, deque[Result]] | None] = queue.SimpleQueue()
        self._judge_awaited = threading.Event()  # it is there, or nobody is to wait for it
        self._judge_dismissed = threading.Event()

    def add(self, results: Results) -> None:
        """Bring a job to its end, unless somebody else has begun with that."""
        is_made = any(isinstance(image, Made) for image in results.images)
        stage = JobStage.judging if is_made else JobStage.delivering
        if not self._journal.move(results.job_id, stage, of=(*UNMADE, JobStage.encoding)):
            return
        images = deque(results.images)  # its threads share them among themselves
        for _ in range(min(self._abreast, len(images))):
            self._turns.put((results.job_id, images))

    def work(self) -> None:
        """A thread's work: as long as there is any, until `close` has been called for it too."""
        while (turn := self._turns.get()) is not None:
            job_id, images = turn
            for image in _taken_from(images):
                self._bring_to_end(job_id, image)

    def close(self) -> None:
        """Let one thread end, once all that was added is done."""
        self._turns.put(None)

    def wait_for_judge(self) -> None:
        """Until there is one, or `wait_no_more` was called."""
        self._judge_awaited.wait()

    def wait_no_more(self) -> None:
        """Those who wait for the judge go on without one."""
        self._judge_awaited.set()

    def start_judge(self, unless: threading.Event) -> None:
        """Raises JudgeUnusable where there will be none; then no picture leaves any more."""
        try:
            self._judging.start(unless)
        except WorkerError:
            self.dismiss_judge()
            raise
        self._judge_awaited.set()

    def dismiss_judge(self) -> None:
        """What it has not judged yet is for the next life of the worker."""
        self._judge_dismissed.set()
        self._judging.kill()

    def stop_judge(self) -> None:
        self._judging.stop()

    def _bring_to_end(self, job_id: str, image: Result) -> None:
        """Without an end where that of the worker comes first."""
        end = None
        try:
            outcome = self._uploaded(job_id, image) if isinstance(image, Made) else image
            if isinstance(outcome, Failed):
                self._journal.failed(outcome)
            end = self._delivery.submit(outcome)
        except Untold:
            pass
        finally:
            self._journal.ended(job_id, image.slot.id, end)

    def _uploaded(self, job_id: str, made: Made) -> Cleared | Failed:
        judged = self._judged(made)
        self._journal.move(job_id, JobStage.delivering)
        return self._delivery.upload(judged) if isinstance(judged, Cleared) else judged

    def _judged(self, made: Made) -> Cleared | Failed:
        self.wait_for_judge()
        try:
            judged = self._judging.judge(made)
        except JudgeUnusable as error:  # it stops the worker: the picture is for its next life
            self.dismiss_judge()
            self._fail(error)
            raise Untold from error
        except Exception as error:  # noqa: BLE001 - the job boundary
            judged = Failed(made.slot, fault_reason(error), made.seed)
        if isinstance(judged, Failed) and self._judge_dismissed.is_set():
            raise Untold  # the next life of the worker asks it again
        return judged


def _taken_from(images: deque[Result]) -> Iterator[Result]:
    """Those that no other thread has taken before."""
    with suppress(IndexError):
        while True:
            yield images.popleft()


def encoded(work: Work, generation: Generation) -> Results:
    """A job's pictures as WebP files.

    Raises ValueError where they are not exactly those of the job's slots.
    """
    asked = [(work.job.id, slot.index) for slot in work.job.slots]
    given = [(picture.job_id, picture.index) for picture in generation.images]
    if given != asked:
        raise ValueError(f"job {work.job.id}: pictures {given} instead of {asked}")
    scores = generation.answers or (None,) * len(generation.images)
    return Results(
        work.job.id,
        tuple(
            Made(
                slot,
                picture.seed,
                picture.to_webp(),
                work.prompt,
                work.use_nsfw_censor,
                (*work.notes, *generation.notes, *_scored(score)),
            )
            for slot, picture, score in zip(work.job.slots, generation.images, scores, strict=True)
        ),
    )


def _scored(score: float | None) -> tuple[GenMetadata, ...]:
    return () if score is None else (GenMetadata.aesthetic_score(score),)

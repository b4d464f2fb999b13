"""The end of a job's way: each image is judged, uploaded and submitted."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable

from worker.errors import JudgeUnusable, WorkerError
from worker.jobs.journal import Books
from worker.jobs.results import Cleared, Failed, ImageEnd, Made, Result, Results, fault_reason
from worker.line.delivery import Delivery, Untold
from worker.safety.judging import Judging


class _Ending:
    """A job of which some images are in hand. Its threads share the images among themselves."""

    def __init__(self, results: Results):
        self.job_id = results.job_id
        self.ends: list[ImageEnd] = []
        self._images = deque(results.images)
        self._in_hand = len(self._images)
        self._lock = threading.Lock()

    def next_image(self) -> Result | None:
        with self._lock:
            return self._images.popleft() if self._images else None

    def note(self, end: ImageEnd | None) -> bool:
        """One of its images is no more in hand, with this end; whether that was the last one."""
        with self._lock:
            self._in_hand -= 1
            if end is not None:
                self.ends.append(end)
            return not self._in_hand


class Finishing:
    """Brings the images of jobs to their ends.

    Several threads work here, and up to `abreast` of them at one job, so that its pictures are on
    their way at once too; with one thread more, no job holds up all others.

    Args:
        over: is told when no image of a job is in hand any more, before the books are.
        fail: is told what the worker can't go on with.
    """

    def __init__(
        self,
        judging: Judging,
        delivery: Delivery,
        books: Books,
        *,
        abreast: int,
        over: Callable[[str], None],
        fail: Callable[[WorkerError], None],
    ):
        self._judging = judging
        self._delivery = delivery
        self._books = books
        self._abreast = abreast
        self._over = over
        self._fail = fail
        self._turns: queue.SimpleQueue[_Ending | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0
        self._judge_awaited = threading.Event()  # it is there, or nobody is to wait for it
        self._judge_dismissed = threading.Event()

    @property
    def unfinished(self) -> int:
        """Jobs of which some images are in hand."""
        return self._unfinished

    def add(self, results: Results) -> None:
        self._count(1)
        ending = _Ending(results)
        for _ in range(min(self._abreast, len(results.images))):
            self._turns.put(ending)

    def work(self) -> None:
        """A thread's work: as long as there is any, until `close` has been called for it too."""
        while (ending := self._turns.get()) is not None:
            while (image := ending.next_image()) is not None:
                self._bring_to_end(image, ending)

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

    def _bring_to_end(self, image: Result, ending: _Ending) -> None:
        end = None
        try:
            end = self._end(image)
        finally:
            if ending.note(end):
                self._count(-1)
                self._over(ending.job_id)
                self._books.over(ending.job_id, ending.ends)

    def _count(self, jobs: int) -> None:
        with self._lock:
            self._unfinished += jobs

    def _end(self, image: Result) -> ImageEnd | None:
        """Bring one image to its end; None where the worker's own end comes first."""
        try:
            outcome = self._uploaded(image) if isinstance(image, Made) else image
            if isinstance(outcome, Failed):
                self._books.failed(outcome)
            end = self._delivery.submit(outcome)
        except Untold:
            return None
        self._books.ended(image.slot.id, end)
        return end

    def _uploaded(self, made: Made) -> Cleared | Failed:
        judged = self._judged(made)
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

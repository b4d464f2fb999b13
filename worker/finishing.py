"""The end of a job's way: each image is judged, uploaded and submitted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.books import Books
from worker.delivery import Delivery, Untold
from worker.errors import JudgeUnusable, WorkerError
from worker.judging import Judging
from worker.results import Cleared, Failed, ImageEnd, Made, Result, Results, fault_reason


@dataclass(slots=True)
class _Ending:
    """A job of which some images have not come to their end."""

    job_id: str
    images_left: int
    ends: list[ImageEnd] = field(default_factory=list[ImageEnd])


class Finishing:
    """Brings images to their ends, one with each thread that works here, whatever their jobs.

    So the pictures of one job are on their way at once too.

    Args:
        over: is told when a job's last image has come to its end, before the books are.
        fail: is told what the worker can't go on with.
    """

    def __init__(
        self,
        judging: Judging,
        delivery: Delivery,
        books: Books,
        *,
        over: Callable[[str], None],
        fail: Callable[[WorkerError], None],
    ):
        self._judging = judging
        self._delivery = delivery
        self._books = books
        self._over = over
        self._fail = fail
        self._images: queue.SimpleQueue[tuple[_Ending, Result] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0
        self.judge_ready = threading.Event()
        """Set once pictures are judged, or nobody is to wait for that any more."""
        self._judge_dismissed = threading.Event()

    @property
    def unfinished(self) -> int:
        """Jobs of which some images have not come to their end."""
        return self._unfinished

    def add(self, results: Results) -> None:
        ending = _Ending(results.job_id, len(results.images))
        with self._lock:
            self._unfinished += 1
        for image in results.images:
            self._images.put((ending, image))

    def work(self) -> None:
        """A thread's work: as long as there is any, until `close` has been called for it too."""
        while (taken := self._images.get()) is not None:
            ending, image = taken
            self._note(ending, self._end(image))

    def close(self) -> None:
        """Let one thread end, once all that was added is done."""
        self._images.put(None)

    def start_judge(self, unless: threading.Event) -> None:
        """Raises JudgeUnusable where there will be none; then no picture leaves any more."""
        try:
            self._judging.start(unless)
        except WorkerError:
            self.dismiss_judge()
            raise
        self.judge_ready.set()

    def dismiss_judge(self) -> None:
        """What it has not judged yet is for the next life of the worker."""
        self._judge_dismissed.set()
        self._judging.kill()

    def stop_judge(self) -> None:
        self._judging.stop()

    def _note(self, ending: _Ending, end: ImageEnd | None) -> None:
        with self._lock:
            ending.images_left -= 1
            if end is not None:
                ending.ends.append(end)
            if ending.images_left:
                return
            self._unfinished -= 1
        self._over(ending.job_id)
        self._books.over(ending.job_id, ending.ends)

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
        self.judge_ready.wait()
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

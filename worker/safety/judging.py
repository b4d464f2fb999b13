"""Which pictures may leave, and what goes in the place of those that may not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from hordelib.errors import JudgeFailed
from hordelib.job.notes import GenMetadata, MetadataType
from worker.backoff import Backoff
from worker.children.judge import JudgeProcess
from worker.children.judge_pool import JudgePool
from worker.errors import JudgeUnusable
from worker.jobs.results import Cleared, Failed, Made
from worker.safety.censorship import AsItIs, Censorship, Replaced, censor_card
from worker.safety.gallery import Gallery

log = logging.getLogger(__name__)

STARTS = 3
RESTARTS = (1.0, 30.0)  # seconds between two of them: the first, the longest


class Judging:
    """Has each picture judged, and applies what the owner and the client want to the verdict.

    `censorship` is what the owner wants at that moment. A `gallery` gets those that leave as they
    are.
    """

    def __init__(
        self,
        judge: JudgeProcess | JudgePool,
        censorship: Callable[[], Censorship],
        gallery: Gallery | None = None,
    ):
        self._judge = judge
        self._censorship = censorship
        self._gallery = gallery

    def start(self, unless: threading.Event) -> None:
        """Raises JudgeUnusable when no picture could be judged, after STARTS tries.

        It is not started `unless` is set, and its end while that is set is no failure.
        """
        backoff = Backoff(*RESTARTS)
        for tries_left in reversed(range(STARTS)):
            if unless.is_set():
                return
            try:
                log.info("pictures are judged by %s", self._judge.start())
            except JudgeUnusable as error:
                if unless.is_set():
                    return
                log.error("the judge did not start: %s", error)
                if not tries_left:
                    raise
                unless.wait(backoff.delay())
            else:
                return

    def stop(self) -> None:
        self._judge.stop()

    def kill(self) -> None:
        """Let no picture leave any more, from any thread."""
        self._judge.kill()

    def is_nsfw(self, id: str, webp: bytes) -> bool:
        """What the form nsfw asks. Raises JudgeFailed and JudgeUnusable as the judge does."""
        verdict = self._judge.judge(id, 0, webp, "")
        return verdict.nsfw or verdict.csam

    def judge(self, made: Made) -> Cleared | Failed:
        """What is to be delivered for this picture."""
        slot = made.slot
        try:
            verdict = self._judge.judge(slot.id, slot.index, made.webp, made.prompt)
        except JudgeFailed as error:
            return Failed(slot, str(error), made.seed)
        outcome = self._censorship().outcome(
            made.prompt, use_nsfw_censor=made.use_nsfw_censor, verdict=verdict
        )
        notes = (*made.notes, *_place(made))
        match outcome:
            case AsItIs():
                if self._gallery is not None:
                    self._gallery.add(made.webp, is_nsfw=verdict.nsfw)
                return Cleared(slot, made.seed, made.webp, notes)
            case Replaced(cause, note):
                log.info("job %s: censored: %s %s", slot.id, cause, ", ".join(verdict.reasons))
                card = censor_card(made.picture, cause).to_webp()
                told = [each for each in notes if each.type is not MetadataType.AESTHETIC_SCORE]
                return Cleared(slot, made.seed, card, (note, *told))


def _place(made: Made) -> tuple[GenMetadata, ...]:
    """Where there are several images of a request, each says its place among them."""
    return (GenMetadata.batch_index(made.slot.index),) if made.slot.batch > 1 else ()

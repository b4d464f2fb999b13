"""Which of a job's pictures may leave, and what goes in the place of those that may not."""

from __future__ import annotations

import logging

from hordelib.engine import Generation
from hordelib.errors import JudgeFailed
from hordelib.gen_metadata import GenMetadata
from hordelib.images import Picture
from worker.censor_card import censor_card
from worker.censorship import AsItIs, Censorship, Replaced
from worker.delivery import Image, Withheld
from worker.errors import JudgeUnusable
from worker.intake import Work
from worker.judge_process import JudgeProcess

log = logging.getLogger(__name__)


class Judging:
    """Has each picture judged, and applies what the owner and the client want to the verdict."""

    def __init__(self, judge: JudgeProcess, censorship: Censorship):
        self._judge = judge
        self._censorship = censorship

    def start(self) -> None:
        """Raises JudgeUnusable when no picture could be judged, after a second try."""
        try:
            names = self._judge.start()
        except JudgeUnusable as error:
            log.error("the judge did not start: %s", error)
            names = self._judge.start()
        log.info("pictures are judged by %s", names)

    def stop(self) -> None:
        self._judge.stop()

    def kill(self) -> None:
        """Let no picture leave any more, from any thread."""
        self._judge.kill()

    def judge(self, work: Work, generation: Generation) -> list[Image | Withheld]:
        """What is to be delivered for each picture, in their order."""
        notes = (*work.notes, *generation.notes)
        return [
            self._judge_image(work, index, picture, notes)
            for index, picture in enumerate(generation.images)
        ]

    def _judge_image(
        self, work: Work, index: int, picture: Picture, notes: tuple[GenMetadata, ...]
    ) -> Image | Withheld:
        job_id = work.job.ids[index]
        try:
            verdict = self._judge.judge(job_id, index, picture, work.prompt)
        except JudgeFailed as error:
            return Withheld(picture.seed, str(error))
        outcome = self._censorship.outcome(
            work.prompt, use_nsfw_censor=work.use_nsfw_censor, verdict=verdict
        )
        match outcome:
            case AsItIs():
                return Image(picture, notes)
            case Replaced(cause, note):
                log.info("job %s: censored: %s %s", job_id, cause, ", ".join(verdict.reasons))
                return Image(censor_card(picture, cause), (note, *notes))

"""A job that was understood, with all that the engine needs."""

from __future__ import annotations

from dataclasses import dataclass

from hordelib.files.model import Model
from hordelib.job.notes import GenMetadata
from hordelib.job.params import GenerationParams
from worker.horde.api import Job


@dataclass(frozen=True, slots=True)
class Work:
    """A job that was understood, with all that it needs. `notes` go with each of its pictures."""

    job: Job
    params: GenerationParams
    model: Model
    use_nsfw_censor: bool = False
    notes: tuple[GenMetadata, ...] = ()

    @property
    def prompt(self) -> str:
        """As it is drawn, the negative one after the first `###`.

        What the positive one has of these, by its choices of words, is no such mark: left in, it
        would hide what follows from the owner's list of words and the judges.
        """
        return f"{self.params.prompt.replace('###', ' ')}###{self.params.negative_prompt}"

"""From the engine's pixels to the files that are uploaded, each with the id it belongs to."""

from __future__ import annotations

from hordelib.engine import Generation
from worker.jobs.results import Made, Results
from worker.jobs.work import Work


def encoded(work: Work, generation: Generation) -> Results:
    """A job's pictures as WebP files.

    Raises ValueError where they are not exactly those of the job's slots.
    """
    asked = [(work.job.id, slot.index) for slot in work.job.slots]
    given = [(picture.job_id, picture.index) for picture in generation.images]
    if given != asked:
        raise ValueError(f"job {work.job.id}: pictures {given} instead of {asked}")
    notes = (*work.notes, *generation.notes)
    return Results(
        work.job.id,
        tuple(
            Made(slot, picture.seed, picture.to_webp(), work.prompt, work.use_nsfw_censor, notes)
            for slot, picture in zip(work.job.slots, generation.images, strict=True)
        ),
    )

"""From a popped job to work for the engine: parse it, and say what can't be done as asked.

A job whose picture would not be what was asked for is faulted. What only makes a picture plainer is
left out and disclosed to the client, as the horde's other workers do: faulting costs the client his
turn, and the horde puts a worker that faults many jobs into maintenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hordelib.errors import JobError
from hordelib.params import GenerationParams
from worker.wire import GenMetadata, Job, MetadataType, MetadataValue


@dataclass(frozen=True, slots=True)
class Work:
    """A job that was understood. `notes` go with each of its pictures."""

    job: Job
    params: GenerationParams
    checkpoint: Path
    notes: tuple[GenMetadata, ...] = ()


def take_in(job: Job, models: Mapping[str, Path]) -> Work:
    """Read the job; `models` has the file of each model that is offered.

    Raises JobError (mostly InvalidParams, which names the field) for a job that can't be served.
    """
    if job.model not in models:
        raise JobError(f"model {job.model!r} is not one that this worker offers")
    payload = {**job.payload, "source_image": job.source_image}
    notes = (*_left_out_tis(payload.pop("tis", None)), *_uncensored(payload))
    params = replace(GenerationParams.from_payload(payload), images=len(job.ids))
    return Work(job, params, models[job.model], notes)


def _left_out_tis(tis: Any) -> list[GenMetadata]:
    """Textual inversions can't be had here, and the horde hands such jobs to every worker."""
    names = [str(ti["name"]) for ti in _objects(tis) if "name" in ti]
    return [GenMetadata(MetadataType.TI, MetadataValue.DOWNLOAD_FAILED, name) for name in names]


def _uncensored(payload: Mapping[str, Any]) -> list[GenMetadata]:
    if not payload.get("use_nsfw_censor"):
        return []
    told = "this worker can't tell NSFW pictures apart: use_nsfw_censor had no effect"
    return [GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told)]


def _objects(value: object) -> list[dict[str, Any]]:
    entries = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict)]

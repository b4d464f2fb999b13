"""What an earlier life of the worker has left, read from the rows of its ledger.

Rows may be damaged in any way. Each is checked as what comes from a stranger is: an image whose row
can't be read has failed, and nothing here raises.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, ValidationError

from hordelib.job.notes import GenMetadata
from worker.clock import elapsed_seconds
from worker.horde.api import CLEANER_SECONDS, FullPop, Job, Slot
from worker.horde.forms import Form, FullForm
from worker.horde.kinds import Kind
from worker.horde.texts import FullText, TextJob
from worker.jobs.results import Failed, Made, Result, Results, Solved
from worker.net.untrusted import one_line

log = logging.getLogger(__name__)

LONGEST_SECONDS = 3600.0  # that a picture is tried to be delivered, whatever the clock says
UNREADABLE = "what the worker knew of it can't be read any more"
UNREAD_SECONDS = 60.0  # for telling the horde of an image whose row can't be read
Asked = Job | Form | TextJob
"""What the horde asked for, of each kind of work."""

MOST_LIVES = 2  # of the worker that a job may see: one of the two may have died of it


@dataclass(frozen=True, slots=True)
class Owed:
    """A job that has not ended yet.

    `job` is there where it can be made again, `solved` where a form or a text is done; otherwise
    `results` say what is left of it.
    """

    results: Results
    model: Text
    job: Asked | None = None
    solved: Solved | None = None

    @property
    def slots(self) -> list[Slot]:
        return [each.slot for each in (*self.results.images, self.solved) if each is not None]


def _whole_text(text: str) -> str:
    """Raises ValueError for what was no UTF-8 on the disk."""
    if not _is_whole(text):
        raise ValueError("no UTF-8")
    return text


def _is_whole(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


Text = Annotated[str, AfterValidator(_whole_text)]


class ImageRow(BaseModel):
    """A row of an image that has not ended, with all that has to be right about it."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    id: Text = Field(min_length=1)
    job: Text
    place: int = Field(ge=0)
    batch: int = Field(ge=1)
    model: Text
    upload_url: Text
    over_at: float  # seconds since 1970
    state: Literal["popped", "made", "cleared", "failed"]
    """An earlier version called one that was judged cleared."""
    seed: Annotated[str, Field(pattern=r"^-?[0-9]{1,40}$")]
    webp: bytes | None
    prompt: Text
    use_nsfw_censor: int
    notes: Json[tuple[GenMetadata, ...]]
    reason: Text


class AskedRow(BaseModel):
    """What the horde asked for (Job.asked), and in how many lives of the worker it was in hand."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: Text
    asked: Text
    lives: int = Field(ge=1)


def read_owed(
    images: Iterable[sqlite3.Row],
    jobs: Iterable[sqlite3.Row],
    now: float,
    kind: Kind = Kind.image,
) -> tuple[list[Owed], list[int]]:
    """The jobs, in the order of their first rows; and the `rowid` of rows without a readable id.

    `images` have the fields of ImageRow and `rowid`, `jobs` those of AskedRow. `now` is in seconds
    since 1970.
    """
    found: dict[str, list[ImageRow | Failed]] = {}
    nameless: list[int] = []
    for row in images:
        if not row["id"] or not _is_whole(row["id"]):
            log.error("a row of the ledger is damaged up to its id: removed")
            nameless.append(row["rowid"])
            continue
        job_id = row["job"] if _is_whole(row["job"]) else row["id"]
        found.setdefault(job_id, []).append(_image(row))
    asked = _asked(jobs)
    return [_owed(id, rows, asked.get(id), now, kind) for id, rows in found.items()], nameless


def _image(row: sqlite3.Row) -> ImageRow | Failed:
    try:
        return ImageRow.model_validate(dict(row))
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, what["loc"]))
        id = one_line(row["id"], 80)
        log.error("job %s: its row in the ledger is damaged (%s: %s)", id, where, what["msg"])
    over_at = elapsed_seconds() + UNREAD_SECONDS
    slot = Slot(id=row["id"], upload_url="", index=0, batch=1, over_at=over_at)
    return Failed(slot, UNREADABLE)


def _asked(rows: Iterable[sqlite3.Row]) -> Mapping[str, AskedRow]:
    """Without what can't be read: such a job is not made again."""
    found: dict[str, AskedRow] = {}
    for row in rows:
        try:
            job = AskedRow.model_validate(dict(row))
        except ValidationError:
            continue
        found[job.id] = job
    return found


def _owed(
    job_id: str,
    images: Sequence[ImageRow | Failed],
    asked: AskedRow | None,
    now: float,
    kind: Kind,
) -> Owed:
    rows = sorted((each for each in images if isinstance(each, ImageRow)), key=lambda r: r.place)
    unread = [each for each in images if isinstance(each, Failed)]
    known = [_result(row, now, kind) for row in rows]
    solved = next((each for each in known if isinstance(each, Solved)), None)
    unsolved = (each for each in known if not isinstance(each, Solved))
    results = Results(job_id, (*unsolved, *unread))
    job = _job(rows, asked, now, kind) if rows and asked and not unread else None
    is_the_same = job is not None and job.id == job_id
    return Owed(results, rows[0].model if rows else "", job if is_the_same else None, solved)


_POPS: Mapping[Kind, type[FullPop] | type[FullForm] | type[FullText]] = {
    Kind.image: FullPop,
    Kind.form: FullForm,
    Kind.text: FullText,
}


def _job(rows: Sequence[ImageRow], asked: AskedRow, now: float, kind: Kind) -> Asked | None:
    """As the horde handed it out; None where it is too late, or was tried often enough.

    All of it has to be open: of a batch, each seed counts from the first image's. A deadline
    further away than the horde gave is of a clock that was set back: nobody knows how late it is.
    """
    places = [row.place for row in rows]
    is_open = all(row.state == "popped" for row in rows)
    if not is_open or places != list(range(rows[0].batch)) or asked.lives >= MOST_LIVES:
        return None
    try:
        pop = _POPS[kind].model_validate_json(asked.asked)
        whole_seconds = pop.ttl + CLEANER_SECONDS
        left_seconds = rows[0].over_at - now
        if not 0 < left_seconds <= whole_seconds:
            return None
        popped_at = elapsed_seconds() + left_seconds - whole_seconds
        return pop.job(tuple(row.id for row in rows), popped_at)
    except ValueError:
        return None


def _result(row: ImageRow, now: float, kind: Kind) -> Result | Solved:
    slot = Slot(
        id=row.id,
        upload_url=row.upload_url,
        index=row.place,
        batch=row.batch,
        # A clock that was set meanwhile can't make it later than this.
        over_at=elapsed_seconds() + min(row.over_at - now, LONGEST_SECONDS),
    )
    if row.state == "failed":
        return Failed(slot, row.reason, int(row.seed))
    if row.state == "popped" or row.webp is None:
        return Failed(slot, "the worker was ended while it had this job")
    if kind is not Kind.image:
        return _solved(slot, row.webp)
    return Made(slot, int(row.seed), row.webp, row.prompt, bool(row.use_nsfw_censor), row.notes)


def _solved(slot: Slot, result: bytes) -> Solved | Failed:
    try:
        return Solved(slot, json.loads(result))
    except (ValueError, RecursionError):
        return Failed(slot, UNREADABLE)

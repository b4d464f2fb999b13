"""One moment of a worker, for whoever looks at it from outside of its process.

No prompt, picture, key or name of a client is in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.horde.kinds import Kind
from worker.jobs.results import ENDS
from worker.jobs.status import JobRow, StatusView
from worker.line.devices.device_state import DeviceState
from worker.line.pausing import PauseReason

SCHEMA = 1
"""Grows where a field goes or changes its meaning; new fields may come at any time."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class JobOverview(_Part):
    """A job in hand."""

    id: str
    """Its first image's id at the horde."""
    model: str
    stage: str
    """popped, reading, waiting, running, encoding, judging or delivering."""
    images: int
    """That have not ended."""
    width: int | None = None
    """In pixels, as height; null until the job was read."""
    height: int | None = None
    loras: tuple[str, ...] = ()
    """By their names at CivitAI, or their numbers there."""
    step: int = 0
    steps: int = 0
    """0 until the first step is done."""
    seconds_left: float | None = None
    """On the device, an estimate; null where nothing is known."""
    kudos: float | None = None
    """An estimate; null where nothing is known."""


class KindOverview(_Part):
    """Another kind of work that is served beside pictures."""

    kind: str
    """form or text."""
    name: str
    """Of its worker at the horde."""
    why: str = ""
    """What keeps it from work, with the remedy; "" for nothing."""
    in_hand: int = 0
    done: int = 0
    """Submitted in this life, as all that follows is of this life."""
    failed: int = 0
    kudos: float = 0.0

    @property
    def figures(self) -> str:
        """In words."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.in_hand} in hand, {self.done} done{failed}, {self.kudos:.2f} kudos"


class Overview(_Part):
    """What a running worker does at the moment."""

    schema_version: int = SCHEMA
    at: float = Field(default_factory=time.time)
    """When it was so, in seconds since 1970 UTC."""
    doing: str
    """waiting (for its owner, at its page), starting, serving, in maintenance, pausing, paused,
    draining or ended."""
    why: str = ""
    """What keeps it from jobs, with the remedy; "" for nothing."""
    pauses: tuple[PauseReason, ...] = ()
    """Why it asks for no jobs: each with `cause`, `told`, `kind` and `until`."""
    began: float | None = None
    """When this life of the worker began, in seconds since 1970 UTC."""
    models: tuple[str, ...] = ()
    """Those that are offered."""
    jobs: tuple[JobOverview, ...] = ()
    """In hand, oldest first."""
    images: int = 0
    """Submitted in this life, as all that follows is of this life."""
    failed: int = 0
    kudos: float = 0.0
    device_seconds: float = 0.0
    lost_pops: int = 0
    """Answers of the horde that were lost on their way; they may have contained jobs."""
    messages: tuple[str, ...] = ()
    """What the horde's moderators write to this worker, for as long as they say."""
    others: tuple[KindOverview, ...] = ()
    """Kinds of work beside pictures; what is said above is of pictures."""

    devices: tuple[DeviceState, ...] = ()
    """The cards, or the processor where there is none: what each does."""

    @property
    def running(self) -> JobOverview | None:
        return next((job for job in self.jobs if job.stage == "running"), None)

    def beside(
        self, others: Iterable[KindOverview], devices: Sequence[DeviceState] = ()
    ) -> Overview:
        """The same of a worker that serves these, too, and has these devices."""
        return self.model_copy(update={"others": tuple(others), "devices": tuple(devices)})

    def is_like(self, other: Overview) -> bool:
        """Whether they differ in their moment alone."""
        return self.model_copy(update={"at": other.at, "began": other.began}) == other


def overview_of(
    view: StatusView,
    doing: str,
    why: str,
    *,
    began: float,
    models: Sequence[str],
    pauses: Sequence[PauseReason] = (),
) -> Overview:
    return Overview(
        doing=doing,
        why=why,
        pauses=tuple(pauses),
        began=began,
        models=tuple(models),
        jobs=tuple(map(_job, (row for row in view.rows if row.stage not in ENDS))),
        images=view.images_done,
        failed=view.images_failed,
        kudos=round(view.kudos, 2),
        device_seconds=round(view.device_seconds, 1),
        lost_pops=view.lost_pops,
        messages=tuple(message.message for message in view.messages),
    )


def kind_overview(kind: Kind, name: str, view: StatusView) -> KindOverview:
    return KindOverview(
        kind=kind.value,
        name=name,
        why=view.obstacle.told,
        in_hand=sum(len(row.left) for row in view.rows if row.stage not in ENDS),
        done=view.images_done,
        failed=view.images_failed,
        kudos=round(view.kudos, 2),
    )


def sentence(overview: Overview) -> str:
    """What the worker does and why, for people. What it tells of itself comes with the remedy."""
    why = "; ".join(reason.told for reason in overview.pauses) or overview.why
    match overview.doing:
        case "serving" if overview.running:
            told = f"It serves the horde, and is making a picture with {overview.running.model}."
        case "serving" if kinds := _in_hand(overview):
            told = f"It serves the horde, and has {' and '.join(kinds)} in hand."
        case "serving" if why:
            return f"It gets no jobs: {why}."
        case "serving":
            return "It waits for jobs: the horde has none for it at the moment."
        case "in maintenance":
            told = "It is in maintenance: the horde gives it its owner's own jobs alone"
            return f"{told} ({why})." if why else f"{told}."
        case "pausing":
            told = "It pauses once nothing is in hand any more."
        case "paused":
            told = "It is paused."
        case "draining":
            told = "It finishes the jobs in hand, then it ends."
        case "ended":
            told = "It has ended."
        case doing:
            told = f"It is {doing}."
    return f"{told} {why[:1].upper()}{why[1:]}." if why else told


def _in_hand(overview: Overview) -> list[str]:
    """The kinds of work, for people."""
    pictures = ["jobs"] if overview.jobs else []
    return pictures + [f"{other.kind}s" for other in overview.others if other.in_hand]


def read_overview(text: str) -> Overview | None:
    """None for what is no overview, or one of another version's."""
    try:
        return Overview.model_validate_json(text)
    except ValidationError:
        return None


def _job(row: JobRow) -> JobOverview:
    params = row.params
    return JobOverview(
        id=row.job_id,
        model=row.model,
        stage=row.stage.value,
        images=len(row.left),
        width=params.width if params else None,
        height=params.height if params else None,
        loras=tuple(lora.name for lora in params.loras) if params else (),
        step=row.step,
        steps=row.steps,
        seconds_left=_seconds_left(row),
        kudos=round(row.expected_kudos, 1) or None,
    )


def _seconds_left(row: JobRow) -> float | None:
    """By its steps, which take most of the time."""
    whole = row.expected_seconds or row.own_seconds
    if not math.isfinite(whole):
        return None
    done = row.step / row.steps if row.steps else 0.0
    return round(whole * (1 - done), 1)

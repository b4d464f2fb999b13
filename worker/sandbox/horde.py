"""The horde itself, without HTTP: every rule behind one lock and one injected clock.

Nothing runs in the background. The cleaner, which on the server wakes once a minute, is caught
up with before each call, as of the minute at which it would have run: whoever moves the clock
sees what the server would have done meanwhile.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from threading import RLock
from typing import Concatenate, Literal, ParamSpec, TypeVar

from worker.sandbox import books, dispatch, pages, registration, replies, settlement, swagger
from worker.sandbox.books import Absence, Books, Tally
from worker.sandbox.dispatch import Handout
from worker.sandbox.errors import Refusal
from worker.sandbox.kinds.alchemy import FORM_SECONDS, Alchemy
from worker.sandbox.kinds.alchemy_records import Alchemist, SourcePicture
from worker.sandbox.kinds.alchemy_wire import FormPopBody, FormSubmitBody, InterrogateBody
from worker.sandbox.kinds.text import Texts
from worker.sandbox.kinds.text_records import ScribeRow
from worker.sandbox.kinds.text_wire import TextPopBody
from worker.sandbox.objects import ObjectStore
from worker.sandbox.pages import Cache
from worker.sandbox.records import (
    Account,
    Message,
    Records,
    ReferenceModel,
    Request,
    Sources,
    User,
    Worker,
)
from worker.sandbox.replies import Json, Links
from worker.sandbox.rules import admission, matching, pricing
from worker.sandbox.rules.admission import Asked
from worker.sandbox.rules.capabilities import NEWEST_GATE
from worker.sandbox.rules.matching import Offer
from worker.sandbox.sources import Pictures
from worker.sandbox.wire import GenerateBody, PopBody, SubmitBody, WorkerBody

NO_WORKER_WARNING = "No available worker can fulfil this request. It expires in 20 minutes."

_NO_WORKER: Json = {
    "message": NO_WORKER_WARNING,
    "warnings": [{"code": "NoAvailableWorker", "message": NO_WORKER_WARNING}],
}

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: the least time a worker gets, how often the cleaner runs, how long links live.

    `cache_seconds`: for how long the pages of a user and of a worker are shown as they were.

    `drop_window_seconds`: how long a dropped job counts against its worker.

    `form_seconds`: what an alchemist gets for each form.
    """

    min_ttl_seconds: int = 150
    cleaner_seconds: int = 60
    link_seconds: int = 1800
    cache_seconds: int = 30
    drop_window_seconds: int = 3600
    form_seconds: int = FORM_SECONDS


def _atomic(
    method: Callable[Concatenate[Horde, P], R],
) -> Callable[Concatenate[Horde, P], R]:
    """One call at a time, after the cleaner has caught up with the clock."""

    @wraps(method)
    def call(self: Horde, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            self._catch_up()
            return method(self, *args, **kwargs)

    return call


class Horde:
    """Thread-safe. Methods answer with the API's JSON or raise SandboxError."""

    def __init__(
        self,
        models: Mapping[str, ReferenceModel],
        users: Iterable[User],
        clock: Callable[[], float],
        timing: Timing,
    ):
        self.store = ObjectStore(clock, timing.link_seconds)
        self._clock = clock
        self._timing = timing
        self._records = Records(
            dict(models),
            {user.key: Account(user, user.kudos) for user in users},
            drop_window_seconds=timing.drop_window_seconds,
        )
        self._alchemy = Alchemy(self._records, timing.form_seconds)
        self._texts = Texts(self._records, timing.min_ttl_seconds)
        self._cache = Cache(clock, timing.cache_seconds)
        self._lock = RLock()
        self._started_at = clock()
        self._cleanings = 0

    # The client's side.

    @_atomic
    def generate(self, key: str, body: GenerateBody, pictures: Pictures) -> Json:
        """Queue a request, or price it only if it is a dry run."""
        asked = Asked(self._records, self._records.account(key), body, pictures)
        admitted = admission.admit(asked, threads=self._online_threads())
        model = self._records.requested_model(admitted)
        if admitted.dry_run:
            return {"kudos": pricing.estimate(admitted, model)}
        id = str(uuid.uuid4())
        sources = self._keep(id, pictures)
        request = admission.enter(asked, admitted, id, self._clock(), sources)
        reply: Json = {"id": id, "kudos": float(round(pricing.kudos(admitted.params)))}
        return reply if self._possible(request) else reply | _NO_WORKER

    @_atomic
    def check(self, id: str) -> Json:
        return self._check(self._records.request(id))

    @_atomic
    def status(self, id: str, links: Links) -> Json:
        request = self._records.request(id)
        return replies.status(request, self._check(request), links)

    @_atomic
    def cancel(self, id: str, links: Links) -> Json:
        """Hand out no more of a request. What workers hold may still be submitted, and is paid."""
        request = self._records.request(id)
        request.cancelled, request.waiting = True, 0
        return replies.status(request, self._check(request), links)

    # The worker's side.

    @_atomic
    def pop(self, key: str, body: PopBody, links: Links) -> Json:
        now = self._clock()
        self._insist_on_free_name(
            body.name, self._alchemy.workers.by_name, self._texts.workers.by_name
        )
        offer = registration.offer_of(self._records, key, body, now)
        found = dispatch.pop(self._records, offer, now, self._timing.min_ttl_seconds)
        messages = [row for row in self._records.messages if row.expires_at > now]
        if isinstance(found, Handout):
            return replies.job(found, self._records.agent(offer.worker), links, messages)
        return replies.empty_pop(found, messages)

    @_atomic
    def lose_pop(self, ids: Iterable[str]) -> None:
        """Put on record that the reply which handed these out did not reach its worker."""
        ids = tuple(ids)
        for id in ids:
            if id in self._records.generations:
                self._records.generations[id].unheard = True
        self._alchemy.lose_pop(ids)
        self._texts.lose_pop(ids)

    @_atomic
    def submit(self, key: str, body: SubmitBody, embedded: bytes | None = None) -> Json:
        """Settle one generation; `embedded` is the WebP of an image sent in the body itself."""
        if embedded is not None:
            body = body.model_copy(update={"generation": "R2"})
        reward = settlement.submit(self._records, key, body, self._clock())
        if embedded is not None:
            name = self._records.generations[body.id].object_name
            self.store.put("transient", name, embedded, "image/webp")
        settlement.refuse_excess(body)
        return {"reward": reward}

    # Alchemy, for clients and for alchemists.

    @_atomic
    def interrogate(self, key: str, body: InterrogateBody, source: SourcePicture) -> Json:
        id = self._alchemy.ask(key, body, source, self._clock())
        if source.webp is not None:
            self.store.put("sources", f"{id}.webp", source.webp, "binary/octet-stream")
        return {"id": id}

    @_atomic
    def form_status(self, id: str, links: Links) -> Json:
        return self._alchemy.status(id, links)

    @_atomic
    def cancel_forms(self, id: str, links: Links) -> Json:
        return self._alchemy.cancel(id, links)

    @_atomic
    def pop_forms(self, key: str, body: FormPopBody, links: Links) -> Json:
        self._insist_on_free_name(body.name, self._records.workers, self._texts.workers.by_name)
        return self._alchemy.pop(key, body, links, self._clock())

    @_atomic
    def submit_form(self, key: str, body: FormSubmitBody) -> Json:
        return self._alchemy.submit(key, body, self._clock())

    # Texts, for clients and for scribes.

    @_atomic
    def with_texts(self, call: Callable[[Texts, float], Json]) -> Json:
        """What the call answers of the texts, at this time."""
        return call(self._texts, self._clock())

    @_atomic
    def pop_texts(self, key: str, body: TextPopBody) -> Json:
        self._insist_on_free_name(body.name, self._records.workers, self._alchemy.workers.by_name)
        return self._texts.pop(key, body, self._clock())

    @_atomic
    def modify_worker(self, key: str, id: str, body: WorkerBody) -> Json:
        """Change a worker as its owner; echoes what changed."""
        other = self._alchemy.workers.by_id(id) or self._texts.workers.by_id(id)
        if other is not None:
            return self._maintain(other, key, body)
        return registration.modify(self._records, key, id, body)

    @_atomic
    def teams(self) -> list[Json]:
        return [{"id": id, "name": name} for id, name in self._records.teams.items()]

    # What anyone may look at.

    @_atomic
    def workers(self, key: str | None) -> list[Json]:
        return [self._worker(row, key) for row in self._records.workers.values()]

    @_atomic
    def worker(self, id: str, key: str | None) -> Json:
        other = self._alchemy.workers.by_id(id) or self._texts.workers.by_id(id)
        return self._other(other, key) if other else self._worker(self._records.worker(id), key)

    @_atomic
    def worker_named(self, name: str, key: str | None) -> Json:
        if other := self._other_named(name):
            return self._other(other, key)
        return self._worker(self._records.worker_named(name), key)

    @_atomic
    def user(self, key: str) -> Json:
        account = self._records.account(key)
        return self._cache.get(("user", key), lambda: pages.user(account, self._records))

    @_atomic
    def models(self, name: str | None = None) -> list[Json]:
        rows = pages.models(self._records, self._clock())
        return [row for row in rows if name in (None, row["name"])]

    @_atomic
    def performance(self) -> Json:
        return pages.performance(self._records, self._clock())

    def swagger(self) -> Json:
        """What the server says of itself: a newer one knows more."""
        return swagger.swagger(is_newest=self._records.newest_gate == NEWEST_GATE)

    @_atomic
    def modes(self) -> Json:
        return pages.modes(self._records)

    # For those who run the sandbox.

    @_atomic
    def books(
        self, tally: Tally, away: Sequence[Absence] = (), *, only_open: bool = False
    ) -> Books:
        stored = {id: self.store.get("transient", f"{id}.webp") for id in self._alchemy.form_ids}
        uploads = {id: each.digests for id, each in stored.items() if each}
        forms = self._alchemy.entries(uploads)
        told = books.write(self._records, self.store, tally, away, forms, only_open=only_open)
        return replace(told, texts=self._texts.entries(), texts_waiting=self._texts.waiting)

    @_atomic
    def clean(self) -> None:
        """Run the cleaner now."""
        settlement.clean(self._records, self._clock())
        self._alchemy.clean(self._clock())
        self._texts.clean(self._clock())

    @_atomic
    def set_maintenance(self, worker: str, message: str | None) -> None:
        """Put the worker of that name into maintenance with a message; None takes it out."""
        row = self._other_named(worker) or self._records.worker_named(worker)
        row.maintenance = message

    @_atomic
    def set_mode(self, mode: Literal["maintenance_mode", "invite_only_mode"], on: bool) -> None:
        setattr(self._records, mode, on)

    @_atomic
    def set_newest_gate(self, gate: int) -> None:
        """Be a server that knows reGen up to this version: GATE_OF_5_1_5 for an older one."""
        self._records.newest_gate = gate

    @_atomic
    def add_pending(self, models: Mapping[str, ReferenceModel]) -> None:
        """Know these models, too, which await approval; they win over others of their name."""
        self._records.reference.update(models)

    @_atomic
    def set_flagged(self, username: str, flagged: bool) -> None:
        """A flagged user's workers are refused. Raises KeyError for an unknown user."""
        accounts = {row.user.username: row for row in self._records.accounts.values()}
        accounts[username].flagged = flagged

    @_atomic
    def time_out(self, seconds: float) -> None:
        """Refuse all pops for so long, as from an address that was timed out."""
        self._records.timeout_until = self._clock() + seconds

    @_atomic
    def send_message(self, text: str, *, origin: str = "sandbox", seconds: float = 3600) -> None:
        """Deliver a message with each pop for so long."""
        row = Message(str(uuid.uuid4()), text, origin, self._clock() + seconds)
        self._records.messages.append(row)

    def _catch_up(self) -> None:
        due = int((self._clock() - self._started_at) // self._timing.cleaner_seconds)
        if due > self._cleanings:
            # A single run as of the last due minute leaves what all the missed ones would have.
            self._cleanings = due
            at = self._started_at + due * self._timing.cleaner_seconds
            settlement.clean(self._records, at)
            self._alchemy.clean(at)
            self._texts.clean(at)

    def _insist_on_free_name(self, name: str, *others: Mapping[str, object]) -> None:
        """A name is of one kind of worker alone."""
        if any(registration.stored_text(name) in rows for rows in others):
            raise Refusal("PolymorphicNameConflict", name=name)

    def _other_named(self, name: str) -> Alchemist | ScribeRow | None:
        alchemist = self._alchemy.workers.by_name.get(name)
        return alchemist or self._texts.workers.by_name.get(name)

    def _other(self, row: Alchemist | ScribeRow, key: str | None) -> Json:
        return row.page(self._records.accounts.get(key or ""), self._clock())

    def _maintain(self, row: Alchemist | ScribeRow, key: str, body: WorkerBody) -> Json:
        """The owner may put it into maintenance; the rest is for picture workers."""
        if row.owner is not self._records.account(key):
            raise Refusal("NotOwner")
        if body.maintenance is None:
            raise Refusal("NoWorkerModSelected")
        told = body.maintenance_msg or registration.DEFAULT_MAINTENANCE_MESSAGE
        row.maintenance = told if body.maintenance else None
        return {"maintenance": body.maintenance}

    def _keep(self, id: str, pictures: Pictures) -> Sources:
        """Store a request's pictures under the names that the server gives them."""
        extras = {f"{id}_exra_src_{i}.webp": data for i, data in enumerate(pictures.extras)}
        image = f"{id}_src" if pictures.from_url else f"{id}_src.webp"
        mask = f"{id}_msk.webp"
        for name, data in {image: pictures.image, mask: pictures.mask, **extras}.items():
            if data is not None:
                self.store.put("sources", name, data, "image/webp")
        return Sources(
            image=image if pictures.image is not None else None,
            mask=mask if pictures.mask is not None else None,
            extras=tuple(extras),
        )

    def _check(self, request: Request) -> Json:
        possible = self._possible(request)
        return replies.check(request, self._records, self._clock(), possible=possible)

    def _possible(self, request: Request) -> bool:
        """Whether an online worker, as it last checked in, could take the request."""
        now = self._clock()
        return any(
            matching.fits(self._records, Offer(row, row.models, 1, (), checks_in=True), request)
            for row in self._records.workers.values()
            if row.online(now) and row.maintenance is None
        )

    def _online_threads(self) -> int:
        now = self._clock()
        rows = self._records.workers.values()
        return sum(row.offer.threads for row in rows if row.online(now))

    def _worker(self, row: Worker, key: str | None) -> Json:
        """The page of one worker. Its owner sees no more than everybody else, as on the server."""
        viewer = self._records.accounts.get(key or "")
        private = viewer is not None and viewer.user.moderator
        make = lambda: pages.worker(row, self._records, self._clock(), private=private)  # noqa: E731
        return self._cache.get(("worker", row.id, private), make)

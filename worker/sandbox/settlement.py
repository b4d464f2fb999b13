"""Submit: what ends a generation, what it pays and what it costs."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from worker.sandbox.dispatch import LIFE_SECONDS
from worker.sandbox.errors import Refusal, SandboxError, ServerBug
from worker.sandbox.records import Generation, Records, Request, Settling, State, Worker
from worker.sandbox.rules import pricing
from worker.sandbox.wire import SubmitBody

MAX_METADATA = 50
MAX_DROPS = 20  # within an hour
FAULTS_OF_A_FAULTED_REQUEST = 3
UNREASONABLE_PIXELSTEPS_PER_SECOND = 20_000_000
DROPPING_MESSAGE = (
    "Maintenance mode activated because worker is dropping too many jobs."
    "Please lower max_power or max_threads."
)


class Settled(Protocol):
    @property
    def settlings(self) -> list[Settling]: ...


@contextmanager
def on_record(row: Settled | None, state: str, now: float) -> Generator[None]:
    """What comes of a submit is noted in the row that it is about, if there is one."""
    rc = ""
    try:
        yield
    except SandboxError as error:
        rc = error.rc or type(error).__name__
        raise
    finally:
        if row is not None:
            row.settlings.append(Settling(now, state, rc))


def submit(records: Records, key: str, body: SubmitBody, now: float) -> float:
    """Settle one generation; its reward. Raises Refusal or ServerBug. Either is put on record."""
    with on_record(records.generations.get(body.id), body.state, now):
        return _settle(records, key, body, now)


def _settle(records: Records, key: str, body: SubmitBody, now: float) -> float:
    generation = _claimed(records, key, body.id)
    if generation.state is State.ok:
        raise Refusal("DuplicateGen", id=generation.id)
    if body.state == "faulted":
        if generation.state is State.processing:
            drop(records, generation, State.faulted, now)
        return 0.0
    if generation.state is not State.processing:
        raise Refusal("AbortedGen", id=generation.id, ttl=generation.ttl_seconds)
    _deliver(records, generation, body, now)
    return generation.reward


def refuse_excess(body: SubmitBody) -> None:
    """Too much metadata is refused, as on the server, when the image has already been paid."""
    if len(body.gen_metadata) > MAX_METADATA and body.state != "faulted":
        raise Refusal("BadRequest", message=f"Too many metadata fields. Max is {MAX_METADATA}.")


def drop(records: Records, generation: Generation, state: State, now: float) -> None:
    """Take a generation from its worker and put its image back into the queue."""
    generation.state = state
    request = generation.request
    # A request gets as many second chances as it asked for images.
    if request.restarted <= request.body.params.n and not request.cancelled:
        request.waiting += 1
    _blame(generation.worker, now, records.drop_window_seconds)


def clean(records: Records, at: float) -> None:
    """What the server's cleaner does once a minute, as of the time `at`."""
    for generation in records.in_hand():
        if at - generation.popped_at > generation.ttl_seconds:
            drop(records, generation, State.aborted, at)
    for request in records.unfinished():
        if request.restarted >= FAULTS_OF_A_FAULTED_REQUEST:
            request.faulted = True
    for request in records.requests.values():
        if request.expires_at <= at and not request.expired:
            _expire(request)


def _claimed(records: Records, key: str, id: str) -> Generation:
    generation = records.generations.get(id)
    if generation is None or generation.request.expired:
        raise Refusal("InvalidJobID", id=id)
    if key not in records.accounts:
        raise ServerBug
    if generation.worker.owner is not records.accounts[key]:
        raise Refusal("WrongCredentials")
    return generation


def _deliver(records: Records, generation: Generation, body: SubmitBody, now: float) -> None:
    request, worker = generation.request, generation.worker
    model = records.model(generation.model)
    generation.state = State.ok
    generation.seed = body.seed
    generation.gen_metadata = body.gen_metadata
    generation.image = body.generation
    generation.reward = pricing.reward(request.body.params, model)
    request.expires_at = now + LIFE_SECONDS
    _measure(worker, request, now - generation.popped_at)
    _pay(worker, generation.reward * records.agent(worker).kudos_factor)
    # A censored image costs the client no more than the tax.
    _charge(request, 1 if generation.censored else pricing.image_cost(request.body, model))


def _measure(worker: Worker, request: Request, seconds: float) -> None:
    speed = request.pixelsteps / max(seconds, 0.001)
    worker.speeds.append(speed)
    worker.fulfilled += 1
    worker.pixelsteps += request.pixelsteps
    if speed > UNREASONABLE_PIXELSTEPS_PER_SECOND:
        worker.suspicions += 1


def _pay(worker: Worker, kudos: float) -> None:
    """Credit worker and owner; half of an untrusted owner's pay is held in evaluation."""
    credited = round(kudos)
    worker.kudos_generated += credited
    if worker.owner.user.trusted:
        worker.owner.kudos += credited
    else:
        worker.owner.kudos += round(credited / 2)
        worker.owner.evaluating_kudos += round(credited / 2)


def _charge(request: Request, kudos: float) -> None:
    request.consumed_kudos += kudos
    request.account.kudos -= kudos


def _blame(worker: Worker, now: float, window_seconds: float) -> None:
    worker.uncompleted += 1
    worker.drops.append(now)
    while worker.drops[0] <= now - window_seconds:
        worker.drops.popleft()
    if len(worker.drops) > MAX_DROPS and worker.maintenance is None:
        worker.maintenance = DROPPING_MESSAGE
        worker.suspicions += 1


def _expire(request: Request) -> None:
    request.expired = True
    for generation in request.generations:
        if generation.state is State.processing:
            generation.state = State.cancelled

"""Pop: which request a worker gets, and how much of it."""

from __future__ import annotations

import hashlib
import random
import uuid
from dataclasses import dataclass

from worker.sandbox.errors import Refusal
from worker.sandbox.records import Generation, Records, Request
from worker.sandbox.rules import matching, pricing
from worker.sandbox.rules.matching import Offer

LIFE_SECONDS = 20 * 60
EXTRA_SLOW_LIFE_SECONDS = 60 * 60


@dataclass(frozen=True, slots=True)
class Handout:
    """What one pop hands out: a batch of at least one image of one request."""

    request: Request
    generations: tuple[Generation, ...]
    seed: int
    model: str
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """An empty pop, with the reasons by how many requests they speak against."""

    skipped: dict[str, int]


def pop(records: Records, offer: Offer, now: float, min_ttl_seconds: int) -> Handout | Nothing:
    """The first request that fits. Raises Refusal WorkerMaintenance."""
    worker = offer.worker
    candidates = _by_priority(records, offer)
    if worker.maintenance is not None:
        candidates = [row for row in candidates if row.account is worker.owner]
    for request in candidates:
        if matching.fits(records, offer, request):
            return _hand_out(records, offer, request, now, min_ttl_seconds)
    if worker.maintenance is not None:
        raise Refusal("WorkerMaintenance", message=worker.maintenance)
    return Nothing(matching.skipped(records, offer, candidates))


def _by_priority(records: Records, offer: Offer) -> list[Request]:
    """The owner's and the preferred users' requests first, then the richest user's oldest."""
    preferred = {offer.worker.owner.user.username, *offer.priority_usernames}

    def rank(request: Request) -> tuple[bool, float, float]:
        account = request.account
        return account.user.username not in preferred, -account.kudos, request.created_at

    return sorted(records.open_requests(), key=rank)


def _hand_out(
    records: Records, offer: Offer, request: Request, now: float, min_ttl_seconds: int
) -> Handout:
    body, settings = request.body, offer.settings
    model = matching.servable_models(records, offer, request)[0]
    baseline = pricing.baseline_of(records.model(model))
    size = pricing.batch_size(
        body,
        baseline,
        waiting=request.waiting,
        amount=offer.amount,
        max_pixels=settings.max_pixels,
    )
    ttl_seconds = pricing.time_to_live(
        body.params,
        baseline,
        extra_slow=settings.extra_slow_worker,
        minimum_seconds=min_ttl_seconds,
    )
    seed = _seed(request)
    generations = tuple(
        Generation(str(uuid.uuid4()), request, offer.worker, model, now, ttl_seconds, seed + place)
        for place in range(size)
    )
    _record(records, request, generations)
    life = EXTRA_SLOW_LIFE_SECONDS if settings.extra_slow_worker else LIFE_SECONDS
    request.expires_at = now + life
    return Handout(request, generations, seed, model, ttl_seconds)


def _record(records: Records, request: Request, generations: tuple[Generation, ...]) -> None:
    request.waiting -= len(generations)
    request.generations.extend(generations)
    records.hand_out(generations)


def _seed(request: Request) -> int:
    """One seed for a batch. With a variation it depends on how many images were still waiting."""
    params = request.body.params
    if params.seed is None:
        seed = random.getrandbits(32)
    elif params.seed.isdecimal():
        seed = int(params.seed)
    else:
        seed = int.from_bytes(hashlib.sha256(params.seed.encode()).digest()[:4])
    return seed + (params.seed_variation or 0) * request.waiting

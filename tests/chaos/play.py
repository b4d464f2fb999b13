"""One run: orders and troubles take turns, then calm, then the books are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice

from tests.chaos import verdict
from tests.chaos.customer import Customer
from tests.chaos.monkey import WEATHER, Trouble, World, strike, troubles
from tests.chaos.verdict import Complaint, Fate, Judgement
from worker.sandbox import Books, State

IMAGES_PER_TROUBLE = 25
START_SECONDS = 60.0
PROGRESS_SECONDS = 5.0  # to wait for some work to be done, before the next trouble
SETTLE_SECONDS = 100.0  # enough for a lost job to be handed out again


def play(
    world: World,
    customer: Customer,
    deck: Mapping[Trouble, int],
    images: int,
    complaint: Complaint,
) -> Judgement:
    """Ask for so many images, with at least one whole deck of troubles on the way.

    Raises EndedByItself; whatever else the worker did wrong is in the judgement.
    """
    strokes = max(sum(deck.values()), images // IMAGES_PER_TROUBLE)
    world.set_weather(WEATHER)
    world.service.start()
    _wait(lambda: world.sandbox.tally().statuses.get(("pop", 200), 0) > 0, START_SECONDS)
    for number, trouble in enumerate(islice(troubles(world.draw, deck), strokes), 1):
        customer.ask_for(images * number // strokes)
        _let_work(world, images // strokes)
        strike(world, trouble)
    world.clear()
    _wait(lambda: _is_settled(world), SETTLE_SECONDS)
    world.service.stop()
    return verdict.judge(world.sandbox.books(), world.kills, complaint)


def _let_work(world: World, most_images: int) -> None:
    """Until some images are submitted: troubles should meet a worker that works."""
    before = _submitted(world)
    wanted = world.draw.randint(0, most_images)
    _wait(lambda: _submitted(world) - before >= wanted, PROGRESS_SECONDS)


def _submitted(world: World) -> int:
    return world.sandbox.tally().statuses.get(("submit", 200), 0)


def _is_settled(world: World) -> bool:
    world.service.insist_on_life()
    books = world.sandbox.books()
    return not _waiting_images(books) and not _images_at_work(books, world)


def _waiting_images(books: Books) -> int:
    return sum(row.waiting for row in books.requests if not (row.done or row.expired))


def _images_at_work(books: Books, world: World) -> list[str]:
    """Those whose worker should still say what became of them."""
    fates = verdict.fates(books, world.kills.worker)
    at_work = books.in_state(State.processing)
    return [row.id for row in at_work if fates[row.id] is Fate.lost]


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Until the condition holds, but no longer than so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not condition():
        time.sleep(0.05)

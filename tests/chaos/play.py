"""One run: orders and troubles take turns, then calm, then the books are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from tests.chaos import verdict
from tests.chaos.customer import Customer
from tests.chaos.monkey import WEATHER, Trouble, World, strike, troubles
from tests.chaos.verdict import (
    Complaint,
    FormComplaint,
    Judgement,
    TextComplaint,
    no_form,
    no_text,
)
from worker.sandbox import Books

IMAGES_PER_TROUBLE, MANY_IMAGES = 25, 1000
IMAGES_PER_LATER_TROUBLE = 100  # beyond MANY_IMAGES: each trouble costs more than many images
IMAGES_PER_FIGURES = 1000
START_SECONDS = 60.0
SETTLE_SECONDS = 180.0  # enough for a lost job to be handed out again, on a busy machine


class QueueLeft(AssertionError):
    """The worker has calm, and does not do what there is to do."""


@dataclass(frozen=True, slots=True)
class Script:
    """`deck`: how often each trouble comes, in one deal. `images`: how many are asked for.

    Before each trouble, some work is waited for, but no longer than `progress_seconds`.
    """

    deck: Mapping[Trouble, int]
    images: int
    progress_seconds: float


def play(
    world: World,
    customer: Customer,
    script: Script,
    complaint: Complaint,
    of_form: FormComplaint = no_form,
    of_text: TextComplaint = no_text,
) -> Judgement:
    """Ask for all images, with at least one whole deck of troubles on the way.

    Raises EndedByItself and QueueLeft; whatever else the worker did wrong is in the judgement.
    """
    strokes = _strokes(script)
    world.set_weather(WEATHER)
    world.service.start()
    _wait(world, lambda: world.sandbox.tally().statuses.get(("pop", 200), 0) > 0, START_SECONDS)
    for number, trouble in enumerate(islice(troubles(world.draw, script.deck), strokes), 1):
        customer.ask_for(script.images * number // strokes)
        _let_work(world, script.images // strokes, script.progress_seconds)
        if number * script.images // strokes >= (len(world.figures) + 1) * IMAGES_PER_FIGURES:
            world.tell_figures()
        strike(world, trouble)
    world.calm_down()
    end(world, SETTLE_SECONDS)
    return verdict.judge(world.sandbox.books(), world.kills, complaint, of_form, of_text)


def end(world: World, most_seconds: float) -> None:
    """Let the worker do all that there is, and stop it. Raises EndedByItself and QueueLeft."""
    if not _wait(world, lambda: _is_settled(world), most_seconds):
        raise QueueLeft(f"work was left after {most_seconds:g} s\n{world.service.last_words()}")
    world.service.stop()


def _strokes(script: Script) -> int:
    """How many troubles: one at least of each card in the deck."""
    later = max(0, script.images - MANY_IMAGES)
    many = (script.images - later) // IMAGES_PER_TROUBLE + later // IMAGES_PER_LATER_TROUBLE
    return max(sum(script.deck.values()), many)


def _let_work(world: World, most_images: int, most_seconds: float) -> None:
    """Until some images are submitted: troubles should meet a worker that works."""
    before = world.submitted()
    wanted = world.draw.randint(0, most_images)
    _wait(world, lambda: world.submitted() - before >= wanted, most_seconds)


def _is_settled(world: World) -> bool:
    books = world.sandbox.open_books()
    return not _waiting_images(books) and not verdict.at_work(books, world.kills.worker)


def _waiting_images(books: Books) -> int:
    """Those that the horde still has to hand out, and forms and texts."""
    images = sum(row.waiting for row in books.requests if not (row.done or row.expired))
    return images + sum(form.state == "waiting" for form in books.forms) + books.texts_waiting


def _wait(world: World, condition: Callable[[], bool], seconds: float) -> bool:
    """Until the condition holds, but no longer than so many seconds; whether it does."""
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        world.bear()
        time.sleep(0.05)
    return holds

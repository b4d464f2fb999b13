"""What the books say of the images in hand, to whoever waits for fewer of them."""

import threading
import time

import pytest

from worker.horde.api import slots_of
from worker.jobs.journal import Books
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobState
from worker.jobs.status import Board

FAILED = ImageEnd(JobState.faulted, is_drop=True)


@pytest.fixture
def books() -> Books:
    """With one job of three images in hand."""
    books = Books(Ledger(None), Board())
    ids = ("a", "b", "c")
    books.popped(slots_of(ids, ("",) * 3, time.monotonic() + 60), "a model")
    return books


def test_who_waits_for_fewer_images_goes_on_when_a_job_is_over(books: Books):
    drops: list[int] = []

    def wait() -> None:
        books.wait_for_fewer(3, 60)
        drops.append(books.guard.drops)

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    books.over("a", [FAILED] * 3)
    waiter.join(5)
    assert drops == [3], "it went on before what had failed was counted"
    assert books.in_hand == 0


def test_who_waits_for_fewer_images_goes_on_in_time(books: Books):
    began = time.monotonic()
    books.wait_for_fewer(3, 0.1)
    assert 0.1 <= time.monotonic() - began < 5
    books.wait_for_fewer(4, 60)
    assert time.monotonic() - began < 5


def test_an_id_is_fresh_once_whatever_became_of_it(books: Books):
    assert books.fresh(("a", "new", "b", "new")) == ("new",)
    books.ended("a", FAILED)
    books.over("a", [FAILED] * 3)
    assert books.fresh(("a", "c")) == ()


def test_what_is_said_of_a_job_that_is_over_or_unknown_ends_nothing(books: Books):
    """As where the horde says something twice, or of another worker."""
    for _ in range(2):
        books.over("a", [FAILED])
        books.over("nobody's", [FAILED])
        books.ended("nobody's", FAILED)
        books.board.running("a")
    assert (books.in_hand, books.guard.drops) == (0, 1)
    assert len(books.board.view().rows) == 1

"""Where jobs are, who takes them over, and who waits for that."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.clock import elapsed_seconds
from worker.horde.api import Slot, slots_of
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import UNMADE, ImageEnd, JobStage

FAILED = ImageEnd(JobStage.faulted, is_drop=True)
DONE = ImageEnd(JobStage.submitted, 5.0)
IDS = ("a", "b", "c")


def slots(*ids: str) -> tuple[Slot, ...]:
    return slots_of(ids, ("",) * len(ids), elapsed_seconds() + 60)


@pytest.fixture
def journal() -> Journal:
    """With one job of three images in hand."""
    journal = Journal(Ledger(None))
    journal.popped(slots(*IDS), "a model")
    return journal


def test_who_waits_for_fewer_images_goes_on_when_one_has_ended(journal: Journal):
    drops: list[int] = []

    def wait() -> None:
        journal.wait_for(lambda: journal.in_hand < 3, 60)
        drops.append(journal.drop_limit.drops)

    waiter = threading.Thread(target=wait)
    waiter.start()
    waiter.join(0.1)
    assert waiter.is_alive()
    journal.ended("a", "b", FAILED)
    waiter.join(5)
    assert drops == [1], "it went on before what had failed was counted"
    assert journal.in_hand == 2


def test_who_waits_for_fewer_images_goes_on_in_time(journal: Journal):
    began = time.monotonic()
    journal.wait_for(lambda: journal.in_hand < 3, 0.1)
    assert 0.1 <= time.monotonic() - began < 5
    journal.wait_for(lambda: journal.in_hand < 4, 60)
    assert time.monotonic() - began < 5


def test_who_waits_looks_again_at_each_change_that_matters_and_when_woken(journal: Journal):
    is_stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(journal.wait_for, is_stopping.is_set)
        with pytest.raises(TimeoutError):
            waits.result(0.05)
        is_stopping.set()
        journal.wake()
        waits.result(5)
        waits = pool.submit(journal.wait_for, lambda: journal.jobs()[0].stage is JobStage.encoding)
        with pytest.raises(TimeoutError):
            waits.result(0.05)
        journal.move("a", JobStage.encoding)
        waits.result(5)


def test_an_id_is_fresh_once_whatever_became_of_it(journal: Journal):
    assert journal.fresh(("a", "new", "b", "new")) == ("new",)
    for id in IDS:
        journal.ended("a", id, FAILED)
    assert journal.fresh(("a", "c")) == ()


def test_what_is_said_of_a_job_that_is_over_or_unknown_ends_nothing(journal: Journal):
    """As where the horde says something twice, or of another worker."""
    for _ in range(2):
        for id in IDS:
            journal.ended("a", id, FAILED)
        journal.ended("nobody's", "nobody's", FAILED)
        assert not journal.move("a", JobStage.running)
    assert (journal.in_hand, journal.drop_limit.drops) == (0, 3)
    assert journal.jobs() == ()
    assert len(journal.view().rows) == 1


def test_a_job_is_in_the_journal_from_its_pop_to_its_last_image(journal: Journal):
    over: list[str] = []
    journal.on_over = over.append
    assert [row.stage for row in journal.jobs()] == [JobStage.popped]
    for stage in (*UNMADE, JobStage.encoding, JobStage.judging, JobStage.delivering):
        assert journal.move("a", stage)
        assert [row.stage for row in journal.jobs()] == [stage]
    journal.ended("a", "b", FAILED)
    journal.ended("a", "c", None)
    assert [row.left for row in journal.jobs()] == [{"a"}]
    assert over == []
    journal.ended("a", "a", DONE)
    assert (journal.jobs(), over) == ((), ["a"])
    (row,) = journal.view().rows
    assert (row.stage, row.kudos) == (JobStage.submitted, 5.0)


def test_a_job_that_is_left_to_the_next_life_is_not_shown(journal: Journal):
    journal.leave("a")
    assert (journal.jobs(), journal.view().rows) == ((), ())


def test_of_many_threads_one_takes_a_job_over(journal: Journal):
    with ThreadPoolExecutor(8) as pool:
        moves = [pool.submit(journal.move, "a", JobStage.delivering, UNMADE) for _ in range(100)]
        assert sum(move.result() for move in moves) == 1

"""One thread keeps all deadlines: each passes in its time, whatever the others do."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from worker.deadlines import deadline

WAIT_SECONDS = 10  # for what should come at once


def test_the_nearer_one_passes_first_although_it_was_set_later():
    passed: SimpleQueue[str] = SimpleQueue()
    far = deadline(3600, lambda: passed.put("far"))
    deadline(0.2, lambda: passed.put("later"))
    deadline(0.01, lambda: passed.put("sooner"))
    assert [passed.get(timeout=WAIT_SECONDS) for _ in range(2)] == ["sooner", "later"]
    assert not far.is_over
    far.cancel()


def test_one_that_was_cancelled_does_nothing_and_is_not_kept():
    passed: SimpleQueue[str] = SimpleQueue()
    deadline(0.01, lambda: passed.put("cancelled")).cancel()
    deadline(0.05, lambda: passed.put("kept"))
    assert passed.get(timeout=WAIT_SECONDS) == "kept"
    assert passed.empty()


def test_an_action_that_takes_long_keeps_no_other_deadline_waiting():
    go_on, passed = threading.Event(), SimpleQueue[str]()
    deadline(0.0, lambda: go_on.wait(WAIT_SECONDS))
    deadline(0.01, lambda: passed.put("passed"))
    assert passed.get(timeout=WAIT_SECONDS) == "passed"
    go_on.set()


def test_no_thread_is_started_for_a_deadline_that_is_met():
    deadline(3600, lambda: None).cancel()
    before = threading.active_count()
    for _ in range(100):
        deadline(3600, lambda: None)
    assert threading.active_count() == before

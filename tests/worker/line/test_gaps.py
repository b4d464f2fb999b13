"""Work of other kinds between pictures: who has a turn when, and what is done together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from hordelib.alchemy.device_forms import NO_MODEL
from hordelib.engine import Generation
from hordelib.errors import EngineError, GenerationFailed, JobError
from hordelib.files.model import Model
from hordelib.job.batching import Member
from hordelib.job.params import GenerationParams
from hordelib.job.questions import Question, Topic
from worker.jobs.status import JobRow
from worker.line.gaps import Gaps

NEVER = 3600.0  # seconds
CAPTION = Question(Topic.caption, Path("models"))
PLAIN = GenerationParams(prompt="", width=64, height=64, seed=0, keep_source=True)
ASKING = GenerationParams(prompt="", width=64, height=64, seed=0, question=CAPTION)


class Line:
    """An engine that notes what it was given, and the ids of pictures' jobs that wait for it."""

    def __init__(self, patience_seconds: float = 0.0):
        self.jobs = list[str]()
        self.turns = list[list[str]]()
        self.fails = dict[int, Exception]()  # by the size of a batch
        self.hurry = threading.Event()
        self.asked = threading.Semaphore(0)
        self.gaps = Gaps(self.asked.release, self.hurry, self.unmade, patience_seconds)
        self._lanes = ThreadPoolExecutor(8)

    def unmade(self) -> list[JobRow]:
        return [JobRow(id, "a model", (), frozenset()) for id in self.jobs]

    def ask(self, name: str, params: GenerationParams = PLAIN) -> Future[Generation]:
        future = self._lanes.submit(self.gaps.fill, Member(name, params), NO_MODEL, NEVER)
        assert self.asked.acquire(timeout=120)
        return future

    def run(self, members: Sequence[Member], model: Model, until: float) -> Sequence[Generation]:
        self.turns.append([member.job_id for member in members])
        if error := self.fails.get(len(members)):
            raise error
        return [Generation((), 0.0, 0.0, answers=(member.job_id,)) for member in members]


def test_in_a_gap_one_after_the_other_is_done() -> None:
    it = Line(patience_seconds=NEVER)
    first, second = it.ask("first"), it.ask("second")
    assert not it.gaps.take_due(it.run), "nobody has waited for long"
    assert it.gaps.take_turn(it.run)
    assert it.gaps.take_turn(it.run)
    assert not it.gaps.take_turn(it.run)
    assert [first.result(60).answers, second.result(60).answers] == [("first",), ("second",)]
    assert it.turns == [["first"], ["second"]]


def test_pictures_that_keep_coming_wait_for_one_turn_at_most() -> None:
    it = Line()
    for name in ("first", "second", "third"):
        it.ask(name)
    it.jobs = ["a", "b"]
    assert it.gaps.take_due(it.run)
    assert not it.gaps.take_due(it.run), "a and b have waited for the first"
    it.jobs = ["b", "c"]
    assert not it.gaps.take_due(it.run), "b has waited"
    it.jobs = ["c", "d"]
    assert it.gaps.take_due(it.run)
    it.jobs = ["e"]
    assert it.gaps.take_due(it.run)
    assert it.turns == [["first"], ["second"], ["third"]]


def test_what_comes_during_a_turn_has_waited_for_it_too() -> None:
    it = Line()
    it.ask("first")
    it.ask("second")

    def run(members: Sequence[Member], model: Model, until: float) -> Sequence[Generation]:
        it.jobs = ["came meanwhile"]
        return it.run(members, model, until)

    assert it.gaps.take_turn(run)
    assert not it.gaps.take_due(run)
    it.jobs = []
    assert it.gaps.take_due(run)


def test_equal_questions_are_asked_together_and_others_alone() -> None:
    it = Line()
    asked = [it.ask("a", ASKING), it.ask("upscaled"), it.ask("b", ASKING), it.ask("enlarged")]
    while it.gaps.take_turn(it.run):
        pass
    assert it.turns == [["a", "b"], ["upscaled"], ["enlarged"]]
    found = [each.result(60).answers[0] for each in asked]
    assert found == ["a", "upscaled", "b", "enlarged"]


@pytest.mark.parametrize("error", [GenerationFailed("a bad picture"), EngineError("it died")])
def test_a_batch_that_fails_is_done_one_by_one(error: Exception) -> None:
    it = Line()
    it.fails[2] = error
    asked = [it.ask("a", ASKING), it.ask("b", ASKING)]
    while it.gaps.take_turn(it.run):
        pass
    assert it.turns == [["a", "b"], ["a"], ["b"]]
    assert [each.result(60).answers[0] for each in asked] == ["a", "b"]


def test_what_fails_alone_or_for_all_is_told_to_each() -> None:
    it = Line()
    it.fails.update({1: EngineError("it died"), 2: JobError("paused")})
    alone, first, second = it.ask("alone"), it.ask("a", ASKING), it.ask("b", ASKING)
    while it.gaps.take_turn(it.run):
        pass
    assert it.turns == [["alone"], ["a", "b"]]
    for future, told in ((alone, "it died"), (first, "paused"), (second, "paused")):
        with pytest.raises(JobError if told == "paused" else EngineError, match=told):
            future.result(60)


def test_who_is_in_a_hurry_or_late_takes_what_waits_back() -> None:
    it = Line()
    late = ThreadPoolExecutor(1).submit(it.gaps.fill, Member("late", PLAIN), NO_MODEL, 0.0)
    with pytest.raises(EngineError, match="never free"):
        late.result(60)
    waiting = it.ask("waiting")
    it.hurry.set()
    with pytest.raises(EngineError, match="stopping"):
        waiting.result(60)
    assert not it.gaps.take_turn(it.run)

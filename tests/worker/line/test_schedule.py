"""Which waiting jobs run together."""

from __future__ import annotations

import queue
import random
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from hordelib import GenerationParams
from hordelib.files.model import Model
from hordelib.job.batching import share_key
from hordelib.job.families import FAMILIES, Family
from hordelib.job.params import MOST_IMAGES
from worker.horde.api import Job
from worker.jobs.work import Work
from worker.line.devices import schedule, waiting_jobs
from worker.line.devices.schedule import chooser
from worker.line.devices.waiting_jobs import Fits, Waiting, WaitingJobs, batch_for

MODEL = Model("a", FAMILIES["stable diffusion 1"], {})
PARAMS = GenerationParams(prompt="a", width=64, height=64, steps=5)


def work(name: str, model: Model = MODEL, **changes: object) -> Work:
    job = Job(
        ids=(name,),
        model=model.name,
        payload={},
        ttl_seconds=60,
        upload_urls=("",),
        popped_at=0.0,
    )
    return Work(job, replace(PARAMS, **changes), model)


def company(lead: Work, waiting: Sequence[Work], fits: Fits) -> list[str]:
    return names(batch_for(Waiting.of(lead), [Waiting.of(each) for each in waiting], fits))


def always(_batch: object) -> bool:
    return True


def oldest(waiting: Sequence[Waiting]) -> list[Work]:
    return batch_for(waiting[0], waiting[1:], always)


def names(batch: Sequence[Work]) -> list[str]:
    return [each.job.id for each in batch]


def test_jobs_that_agree_run_with_the_oldest_one_in_their_order():
    waiting = [work("b", prompt="b", cfg=3), work("c", steps=6), work("d", seed=4, images=3)]
    assert company(work("a"), waiting, always) == ["a", "b", "d"]


def test_other_models_have_their_own_turn():
    assert company(work("a"), [work("b", replace(MODEL, name="b"))], always) == ["a"]


def test_a_batch_has_no_more_images_than_the_limit():
    waiting = [work("b", images=MOST_IMAGES), work("c", images=MOST_IMAGES - 1)]
    assert company(work("a"), waiting, always) == ["a", "c"]


def test_company_that_would_make_somebody_late_stays_behind():
    waiting = [work("b", images=5), work("c")]
    batch = company(work("a"), waiting, lambda jobs: all(j.params.images < 5 for j in jobs))
    assert batch == ["a", "c"]


def test_what_jobs_have_in_common_is_found_out_once_for_each(monkeypatch: pytest.MonkeyPatch):
    asked: list[GenerationParams] = []

    def counted(params: GenerationParams, family: Family) -> Hashable:
        asked.append(params)
        return share_key(params, family)

    monkeypatch.setattr(waiting_jobs, "share_key", counted)
    line = WaitingJobs()
    for steps in range(1, 21):
        line.add(work(f"job {steps}", steps=steps))
    taken = [line.take(oldest, 0.01) for _ in range(20)]
    assert [len(batch) for batch in taken] == [1] * 20
    assert len(asked) == 20


def test_nobody_is_waited_for_and_the_oldest_is_always_next():
    line = WaitingJobs()
    for each in (work("a"), work("b", steps=9), work("c"), work("d", steps=9)):
        line.add(each)
    assert names(line.take(oldest, 0.01)) == ["a", "c"]
    assert names(line.take(oldest, 0.01)) == ["b", "d"]
    with pytest.raises(queue.Empty):
        line.take(oldest, 0.01)


def test_after_the_last_one_nothing_comes():
    line = WaitingJobs()
    line.add(work("a"))
    line.close()
    assert names(line.take(oldest, 0.01)) == ["a"]
    assert line.take(oldest, 0.01) == []


def test_some_of_those_that_wait_can_be_taken_out():
    line = WaitingJobs()
    for each in (work("a"), work("b", steps=9), work("c")):
        line.add(each)
    assert names(line.take_out(lambda waiting: waiting[1:])) == ["b", "c"]
    assert names(line.take(oldest, 0.01)) == ["a"]


@dataclass(eq=False)
class Card:
    """A device of which everything is known."""

    on_card: str = ""
    in_memory: tuple[str, ...] = ()
    seconds_left: float | None = 0.0
    speed: float = 1.0
    only: str = ""

    @property
    def kind(self) -> float:
        return self.speed

    @property
    def is_free(self) -> bool:
        return self.seconds_left == 0

    def serves(self, work: Work) -> bool:
        return work.model.name == self.only or not self.only

    def seconds_to_have(self, model: str) -> float:
        return 0.0 if model == self.on_card else 1.0 if model in self.in_memory else 10.0

    def seconds(self, work: Work) -> float | None:
        return work.params.steps / self.speed


def job(name: str, model: str = "a", steps: int = 5) -> Work:
    return work(name, replace(MODEL, name=model), steps=steps, cfg=1 + len(name))


def taken(card: Card, others: Sequence[Card], *works: Work) -> list[str]:
    waiting = [Waiting.of(each) for each in works]
    return names(chooser(card, others, always)(waiting))


def test_a_job_goes_where_its_model_is_on_the_card():
    first, second = Card(on_card="a"), Card(on_card="b")
    jobs = (job("for b", "b"), job("for a", "a"))
    assert taken(first, [second], *jobs) == ["for a"]
    assert taken(second, [first], *jobs) == ["for b"]


def test_else_where_it_is_in_memory():
    first, second = Card(on_card="a"), Card(on_card="b", in_memory=("c",))
    assert taken(first, [second], job("for c", "c")) == []
    assert taken(second, [first], job("for c", "c")) == ["for c"]


def test_else_where_it_would_be_done_first():
    slow, fast = Card(), Card(speed=4)
    assert taken(slow, [fast], job("long", steps=40)) == []
    busy = Card(on_card="a", seconds_left=60)
    assert taken(Card(), [busy], job("for a")) == ["for a"], "reading the model is quicker"
    nearly = Card(on_card="a", seconds_left=2)
    assert taken(Card(), [nearly], job("for a")) == []
    unknown = Card(on_card="a", seconds_left=None)
    assert taken(Card(), [unknown], job("for a")) == ["for a"]


def test_a_job_is_for_the_cards_that_serve_its_model():
    first, second = Card(only="a"), Card(only="b", seconds_left=600)
    assert taken(first, [second], job("for b", "b")) == []


def test_jobs_that_agree_share_a_batch_on_one_card_unless_another_one_idles():
    agreeing = [work(name) for name in ("1", "2", "3")]
    mine, busy, idle = Card("a"), Card("a", seconds_left=5), Card("a")
    assert taken(mine, [busy], *agreeing) == ["1", "2", "3"]
    assert taken(mine, [idle], *agreeing) == ["1", "3"]


def test_no_card_leaves_a_job_to_another_one_for_long(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(schedule, "elapsed_seconds", lambda: now)
    stuck = Card(on_card="a", seconds_left=2)
    choose = chooser(Card(on_card="b"), [stuck], always)
    waiting = [Waiting.of(job("for a")), Waiting.of(job("for b", "b"))]
    assert names(choose(waiting)) == ["for b"]
    assert names(choose(waiting[:1])) == []
    now += schedule.PASSED_SECONDS
    assert names(choose(waiting)) == ["for b"]
    now += 0.1
    assert names(choose(waiting)) == ["for a"], "it has waited for long enough"


def test_a_card_that_has_long_had_nothing_to_do_reads_the_model_of_a_busy_one():
    now = schedule.elapsed_seconds()
    busy, idle = Card(on_card="a", seconds_left=2), Card(on_card="b")
    waiting = [Waiting.of(job("for a"))]
    for since, taken in ((now - 9, []), (now - 11, ["for a"])):
        assert names(chooser(idle, [busy], always, since)(waiting)) == taken
    assert names(chooser(idle, [Card(on_card="a")], always, now - 60)(waiting)) == []


def test_a_crowd_of_cards_makes_each_job_once_and_the_oldest_early():
    """Any cards take turns in any order: no job is lost, or passed for ever."""
    draw = random.Random(5)
    cards = [Card(on_card=draw.choice("ab"), speed=draw.choice((1, 2))) for _ in range(4)]
    line = WaitingJobs()
    for number in range(60):
        line.add(job(str(number), draw.choice("abc"), draw.randint(1, 9)))
    made: list[str] = []
    for _ in range(600):
        card = draw.choice(cards)
        with suppress(queue.Empty):
            batch = line.take(chooser(card, [c for c in cards if c is not card], always), 0)
            made += names(batch)
            card.on_card = batch[0].model.name
    assert sorted(made, key=int) == [str(number) for number in range(60)]


def test_what_waits_and_would_be_too_late_is_known_at_the_stop():
    waiting = [job("1", steps=3), job("2", steps=20), job("3", steps=3), job("4", steps=3)]
    assert schedule.late_ones(waiting, [Card()], 100) == []
    assert schedule.late_ones(waiting, [Card()], 8) == [waiting[1], waiting[3]]
    assert schedule.late_ones(waiting, [Card(), Card(seconds_left=4)], 8) == [waiting[1]]
    assert schedule.late_ones(waiting, [Card(seconds_left=None)], 8) == [waiting[1], waiting[3]]

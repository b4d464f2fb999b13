"""Which waiting jobs run together."""

from __future__ import annotations

import queue
from collections.abc import Hashable, Sequence
from dataclasses import replace

import pytest

from hordelib import GenerationParams
from hordelib.files.model import Model
from hordelib.job.batching import share_key
from hordelib.job.families import FAMILIES, Family
from hordelib.job.params import MOST_IMAGES
from worker.horde.api import Job
from worker.jobs.work import Work
from worker.line import waiting_jobs
from worker.line.waiting_jobs import Fits, Waiting, WaitingJobs, batch_for

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


def names(batch: list[Work]) -> list[str]:
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
    taken = [line.take(always, 0.01) for _ in range(20)]
    assert [len(batch) for batch in taken] == [1] * 20
    assert len(asked) == 20


def test_nobody_is_waited_for_and_the_oldest_is_always_next():
    line = WaitingJobs()
    for each in (work("a"), work("b", steps=9), work("c"), work("d", steps=9)):
        line.add(each)
    assert names(line.take(always, 0.01)) == ["a", "c"]
    assert names(line.take(always, 0.01)) == ["b", "d"]
    with pytest.raises(queue.Empty):
        line.take(always, 0.01)


def test_after_the_last_one_nothing_comes():
    line = WaitingJobs()
    line.add(work("a"))
    line.close()
    assert names(line.take(always, 0.01)) == ["a"]
    assert line.take(always, 0.01) == []


def test_some_of_those_that_wait_can_be_taken_out():
    line = WaitingJobs()
    for each in (work("a"), work("b", steps=9), work("c")):
        line.add(each)
    assert names(line.take_out(lambda waiting: waiting[1:])) == ["b", "c"]
    assert names(line.take(always, 0.01)) == ["a"]


def test_what_was_not_taken_is_given_back():
    line = WaitingJobs()
    line.add(work("a"))
    line.add(work("b", steps=9))
    line.take(always, 0.01)
    line.add(work("c"))
    assert names(line.rest()) == ["b", "c"]

"""A job's seconds are predicted from those before it, on a machine that is made up here."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from hordelib.job.families import SD1, SDXL
from hordelib.job.params import GenerationParams, Lora, PostProcessor, ProcessorKind
from hordelib.job.samplers import SAMPLERS
from worker.horde.kudos import estimated_kudos
from worker.prediction.amounts import Amounts, amounts_of
from worker.prediction.fit import fit
from worker.prediction.predictor import JOBS, LATE_JOBS, UNKNOWN, SecondsPredictor
from worker.prediction.seconds_file import SecondsFile

SMALL = GenerationParams(prompt="", width=512, height=512, steps=20)
# What the made up machine takes for an amount of 1; whatever is not named costs nothing.
TRUTH = {
    "job": 0.4,
    "images": 0.05,
    "calls": 0.01,
    "area": 0.06,
    "attention": 0.02,
    "loras": 0.3,
    "chunks": 0.02,
    "negative chunks": 0.01,
    "with LoRAs": 0.2,
    "decoded": 0.2,
}


def truth(params: GenerationParams) -> float:
    return priced(amounts_of(params, SD1))


def priced(work: Amounts) -> float:
    return sum(TRUTH.get(kind, 0.0) * amount for kind, amount in work.items())


def drawn(seed: int, count: int) -> list[GenerationParams]:
    random = Random(seed)
    return [
        GenerationParams(
            prompt="red " * random.choice((3, 100, 200)),
            width=64 * random.randint(4, 16),
            height=64 * random.randint(4, 16),
            images=random.randint(1, 4),
            steps=random.randint(4, 50),
            cfg=random.choice((1.0, 7.0)),
            sampler=random.choice([row for row in SAMPLERS.values() if row.batches]),
            hires_fix=random.random() < 0.2,
            loras=(Lora("any", Path("any")),) * random.randint(0, 2),
        )
        for _ in range(count)
    ]


def taught(jobs: Iterable[GenerationParams], noise: float = 0.0) -> SecondsPredictor:
    predictor, random = SecondsPredictor(), Random(0)
    for job in jobs:
        predictor.learn(job, SD1, truth(job) * random.lognormvariate(0, noise))
    return predictor


def errors(predictor: SecondsPredictor, jobs: Iterable[GenerationParams]) -> list[float]:
    return [abs(predictor.predict(job, SD1).seconds / truth(job) - 1) for job in jobs]


def test_nothing_is_known_before_the_first_job_of_a_family():
    predictor = taught([SMALL])
    assert predictor.predict(SMALL, SDXL) == UNKNOWN
    assert not UNKNOWN.is_known
    assert predictor.least_seconds(SMALL, SDXL) == 0.0
    assert not predictor.takes_longer(0.0, SMALL, SDXL)
    assert predictor.predict(SMALL, SD1).is_known


def test_one_job_foretells_the_same_one_and_gives_an_idea_of_others():
    predictor = taught([SMALL])
    assert predictor.predict(SMALL, SD1).seconds == pytest.approx(truth(SMALL), rel=0.02)
    double = replace(SMALL, steps=40)
    assert truth(SMALL) < predictor.predict(double, SD1).seconds < 2 * truth(SMALL)


def test_jobs_that_were_never_seen_are_met_after_a_hundred_noisy_ones():
    off = errors(taught(drawn(1, 100), noise=0.03), drawn(2, 100))
    assert np.median(off) < 0.02
    assert np.quantile(off, 0.9) < 0.06


def test_no_kind_of_work_is_free_whatever_the_jobs_say():
    """By what was predicted, paces are divided."""
    larger = [{"area": float(number), "job": 1.0} for number in range(1, 21)]
    costs = fit(larger, [1.0 / number for number in range(1, 21)])
    assert 0 < costs.seconds({"area": 1.0}) < 0.01 * costs.seconds({"job": 1.0})


def test_some_jobs_on_a_busy_machine_change_little():
    predictor, random = SecondsPredictor(), Random(0)
    for job in drawn(1, 150):
        busy = 4.0 if random.random() < 0.1 else 1.0
        predictor.learn(job, SD1, truth(job) * busy)
    assert np.quantile(errors(predictor, drawn(2, 100)), 0.9) < 0.05


def test_a_machine_that_has_become_slower_is_followed():
    predictor = taught(drawn(1, JOBS))
    for job in drawn(3, 150):
        predictor.learn(job, SD1, truth(job) * 1.5)
    ratios = [predictor.predict(job, SD1).seconds / truth(job) for job in drawn(2, 50)]
    assert np.median(ratios) == pytest.approx(1.5, rel=0.05)


def test_a_machine_that_is_busy_now_is_followed_within_some_jobs_but_no_hiccup():
    jobs, late = drawn(1, 100), drawn(3, 5)

    def ratio(*paces: float) -> float:
        predictor = taught(jobs)
        for job, pace in zip(late, paces, strict=True):
            predictor.learn(job, SD1, truth(job) * pace)
        return predictor.predict(SMALL, SD1).seconds / predictor_at_ease.predict(SMALL, SD1).seconds

    predictor_at_ease = taught([*jobs, *late])
    assert 1.15 < ratio(1.5, 1.5, 1.5, 1.5, 1.5) < 1.5
    assert ratio(1.0, 1.0, 1.0, 1.0, 3.0) == pytest.approx(1, abs=0.03)


def test_the_spread_holds_nine_in_ten_and_narrows():
    predictor = taught(drawn(1, 3), noise=0.1)
    early = predictor.predict(SMALL, SD1)
    predictor = taught(drawn(1, 150), noise=0.1)
    late = predictor.predict(SMALL, SD1)
    assert late.high / late.low < early.high / early.low
    random = Random(5)
    held = 0
    for job in drawn(2, 200):
        expected = predictor.predict(job, SD1)
        held += expected.low < truth(job) * random.lognormvariate(0, 0.1) < expected.high
    assert 160 < held < 200


def test_work_of_an_unknown_kind_has_a_typical_cost_and_is_not_sure():
    predictor = taught(drawn(1, 50))
    enlarged = replace(
        SMALL, post_processing=(PostProcessor("4x", ProcessorKind.upscaler, Path("4x")),)
    )
    plain, more = predictor.predict(SMALL, SD1), predictor.predict(enlarged, SD1)
    assert more.seconds > plain.seconds
    assert more.high / more.low > plain.high / plain.low


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_time_teaches_nothing(seconds: float):
    predictor = SecondsPredictor()
    predictor.learn(SMALL, SD1, seconds)
    assert predictor.predict(SMALL, SD1) == UNKNOWN


# ---- the least time --------------------------------------------------------------------------


def test_the_fastest_job_of_late_sets_the_least_time():
    predictor = SecondsPredictor()
    for seconds in (8.0, 4.0, 6.0):
        predictor.learn(SMALL, SD1, seconds)
    assert predictor.least_seconds(SMALL, SD1) == pytest.approx(4.0)
    for _ in range(LATE_JOBS):
        predictor.learn(SMALL, SD1, 6.0)
    assert predictor.least_seconds(SMALL, SD1) == pytest.approx(6.0)


@pytest.mark.parametrize("count", [1, 2, 10, 60])
def test_no_least_time_is_longer_than_the_truth(count: int):
    predictor = taught(drawn(1, count))
    for job in drawn(2, 100):
        least_seconds = predictor.least_seconds(job, SD1)
        assert 0 <= least_seconds <= truth(job) * 1.000001
        assert not predictor.takes_longer(least_seconds, job, SD1)
        assert predictor.takes_longer(least_seconds * 0.999, job, SD1) == (least_seconds > 0)


def test_a_sampler_of_two_calls_says_little_of_one_that_makes_one():
    heun = replace(SMALL, sampler=SAMPLERS["k_heun"])
    predictor = taught([heun])
    assert predictor.least_seconds(SMALL, SD1) <= truth(SMALL) < truth(heun)


def test_a_job_that_samples_nothing_says_nothing_of_others():
    predictor = SecondsPredictor()
    predictor.learn(replace(SMALL, return_control_map=True), SD1, 0.001)
    assert predictor.least_seconds(SMALL, SD1) == 0.0


# ---- what is kept ----------------------------------------------------------------------------


def test_what_was_learnt_outlives_the_process_and_is_the_owners_alone(tmp_path: Path):
    file = SecondsFile(tmp_path / "seconds.json", "a card")
    predictor = SecondsPredictor(file)
    for job in drawn(1, 30):
        predictor.learn(job, SD1, truth(job))
    predictor.keep()
    assert SecondsPredictor(file).predict(SMALL, SD1) == predictor.predict(SMALL, SD1)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["seconds.json"]


def test_another_card_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    predictor = SecondsPredictor(SecondsFile(tmp_path / "seconds.json", "a card"))
    predictor.learn(SMALL, SD1, 4.0)
    predictor.keep()
    other = SecondsPredictor(SecondsFile(tmp_path / "seconds.json", "another card"))
    assert other.predict(SMALL, SD1) == UNKNOWN
    assert "those of a card" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\x00",
        b"[]",
        b'{"version": 2, "device": "a card", "families": {}}',
        b'{"version": 1, "device": "a card", "families": {"x": {"jobs": [{"seconds": -1}]}}}',
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_with_one_line(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    file = SecondsFile(tmp_path / "seconds.json", "a card")
    file.path.write_bytes(content)
    predictor = SecondsPredictor(file)
    assert predictor.predict(SMALL, SD1) == UNKNOWN
    assert len(caplog.records) == 1
    predictor.learn(SMALL, SD1, 4.0)
    predictor.keep()
    assert SecondsPredictor(file).predict(SMALL, SD1).is_known


def test_a_folder_that_can_not_be_written_stops_nothing(tmp_path: Path):
    predictor = SecondsPredictor(SecondsFile(tmp_path / "missing" / "seconds.json", "a card"))
    predictor.learn(SMALL, SD1, 4.0)
    predictor.keep()
    assert predictor.predict(SMALL, SD1).is_known


def test_memory_is_bounded(tmp_path: Path):
    file = SecondsFile(tmp_path / "seconds.json", "a card")
    predictor = SecondsPredictor(file)
    for _ in range(2 * JOBS):
        predictor.learn(SMALL, SD1, 1.0)
    assert predictor.predict(SMALL, SD1).jobs == JOBS
    predictor.keep()
    assert len(file.read()[SD1.name].jobs) == JOBS


def test_many_threads_may_learn_and_ask_at_once():
    predictor = SecondsPredictor()

    def use(seed: int) -> None:
        for job in drawn(seed, 20):
            predictor.learn(job, SD1, truth(job))
            assert predictor.predict(job, SD1).seconds > 0
            predictor.least_seconds(job, SD1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    assert predictor.predict(SMALL, SD1).jobs == 80


# ---- kudos -----------------------------------------------------------------------------------


def test_kudos_are_near_to_what_the_server_paid():
    job = replace(SMALL, steps=30)
    assert estimated_kudos(job, SD1) == pytest.approx(7.61, rel=0.04)
    heun = replace(job, sampler=SAMPLERS["k_heun"], images=2)
    assert estimated_kudos(heun, SD1) == pytest.approx(26.0, rel=0.04)
    large = replace(job, width=1024, height=1024)
    assert estimated_kudos(large, SDXL) == pytest.approx(41.3, rel=0.04)
    lora = replace(job, loras=(Lora("any", Path("any")),))
    assert estimated_kudos(lora, SD1) == pytest.approx(10.61, rel=0.04)


def test_few_jobs_that_were_small_and_uneven_do_not_make_a_large_one_cheap():
    """The first jobs of a life are slow by chance: that is no reason to think that size is free."""
    small = GenerationParams(prompt="", width=64, height=64, steps=6)
    predictor = SecondsPredictor()
    for images, seconds in ((1, 0.4), (2, 0.25), (4, 0.2), (1, 0.3)):
        predictor.learn(replace(small, images=images), SD1, seconds)
    large = replace(small, width=512, height=512, steps=30, images=7)
    assert predictor.predict(large, SD1).seconds > 10


@pytest.mark.parametrize(("fixed", "is_sooner"), [(1.0, True), (0.0, False)])
def test_jobs_share_a_batch_where_this_machine_gains_by_it(fixed: float, is_sooner: bool):
    """A fast card waits for orders, whatever the batch; a slow one computes all the time."""
    predictor = SecondsPredictor()
    for job in drawn(5, 100):
        amounts = amounts_of(job, SD1)
        seconds = (
            fixed * 0.05 * amounts["calls"] + 0.06 * amounts["area"] + 0.2 * amounts["decoded"]
        )
        predictor.learn(job, SD1, seconds)
    alone = [replace(SMALL, prompt="red"), replace(SMALL, prompt="blue")]
    together = replace(SMALL, prompt="red", images=2)
    assert predictor.is_sooner_together(together, alone, SD1) is is_sooner

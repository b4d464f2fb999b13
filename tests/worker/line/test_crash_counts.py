"""What the engine dies of three times is found out, and nothing else is blamed for it."""

from __future__ import annotations

from pathlib import Path

from worker.line.devices.crash_counts import Blamed, CrashCounts

BAD, GOOD, OTHER = Path("bad"), Path("good"), Path("other")
NOBODY = Blamed()


def test_a_model_is_convicted_at_the_third_death():
    counts = CrashCounts()
    outcomes = [counts.died("m", (), job) for job in ("a", "a", "b")]
    assert outcomes == [NOBODY, NOBODY, Blamed("m")]


def test_no_single_job_convicts_a_model_however_often_it_comes():
    counts = CrashCounts()
    assert [counts.died("m", (), "a") for _ in range(6)] == [NOBODY] * 6


def test_a_lora_is_convicted_and_its_model_is_not():
    counts = CrashCounts()
    outcomes = [counts.died(f"model {i % 2}", [BAD], f"job {i}") for i in range(3)]
    assert outcomes == [NOBODY, NOBODY, Blamed("", (BAD,))]


def test_a_model_that_dies_with_different_loras_is_the_cause():
    counts = CrashCounts()
    outcomes = [counts.died("m", [lora], "a") for lora in (BAD, GOOD, OTHER)]
    assert outcomes == [NOBODY, NOBODY, Blamed("m")]


def test_a_job_that_goes_well_clears_what_it_used():
    counts = CrashCounts()
    counts.died("m", [GOOD], "a")
    counts.died("m", [GOOD], "b")
    counts.did_well("m", [GOOD])
    assert counts.died("m", [GOOD], "c") == NOBODY
    assert counts.died("m", (), "d") == NOBODY

"""One engine, kept alive: deadlines, deaths, and what they are blamed on. Real child processes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hordelib.errors import JobError
from hordelib.files.model import Model
from hordelib.job.notes import MetadataType, MetadataValue
from hordelib.job.params import GenerationParams, Lora
from tests.support import scripted_engine
from tests.support.owner import wait_for
from tests.support.sandbox_client import MODEL
from tests.support.scripted_engine import BROKEN, DEADLY, SLOW_WIDTH, STEP_SECONDS
from worker.children.engine import EngineProcess
from worker.children.messages import EngineSettings
from worker.clock import elapsed_seconds
from worker.config.keys import BridgeConfig
from worker.errors import EngineUnusable
from worker.horde.api import Job
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import STOPPING, JobStage
from worker.jobs.work import Work
from worker.line.devices.blame import TRIAL, Evidence
from worker.line.devices.device import Device
from worker.line.devices.runner import Runner
from worker.line.job_ends import TooLate
from worker.models.offered import OfferedModels
from worker.models.opening import Models
from worker.service.assembly import make_intake

OTHER = "Another Model"
LONG_SECONDS = 150


@dataclass
class Stage:
    """A runner over a real child process, and what it is told."""

    runner: Runner
    engine: EngineProcess
    offered: OfferedModels
    model: Model
    hurry: threading.Event
    journal: Journal
    tis: Path
    jobs: int = 0

    def work(
        self,
        prompt: str = "",
        *,
        ttl_seconds: int = LONG_SECONDS,
        model: str = MODEL,
        lora: str = "",
        steps: int = 4,
    ) -> Work:
        """A job whose ttl, without the cleaner's minute, begins now."""
        self.jobs += 1
        job = Job(
            ids=(f"job-{self.jobs}",),
            model=model,
            payload={},
            ttl_seconds=ttl_seconds,
            upload_urls=("https://put",),
            popped_at=elapsed_seconds() - 60,
        )
        wanted = GenerationParams(
            prompt=prompt, width=64, height=64, steps=steps, embeddings_folder=self.tis
        )
        if lora:
            wanted = replace(wanted, loras=(Lora(lora, Path(lora)),))
        self.journal.popped(job.slots, model)
        return Work(job, wanted, replace(self.model, name=model))


def make_stage(engine: EngineProcess, checkpoint: Path, folder: Path) -> Stage:
    """Two models of the same file, and an engine for them."""
    model = Model.of_checkpoint(checkpoint, MODEL)
    config = BridgeConfig.model_validate(
        {"api_key": "k", "dreamer_name": "w", "models_to_load": [MODEL]}
    )
    intake = make_intake(config, folder, Models({MODEL: model, OTHER: model}, ()))
    hurry, journal, offered = threading.Event(), Journal(Ledger(None)), intake.offered
    evidence = Evidence(intake.adapters.ban)
    runner = Runner(Device(engine), offered, journal, evidence=evidence, hurry=hurry, starts=1)
    return Stage(runner, engine, offered, model, hurry, journal, folder / "ti")


@pytest.fixture
def stage(checkpoint: Path, tmp_path: Path) -> Generator[Stage]:
    settings = EngineSettings(None, "auto", 0, None, tmp_path / "engine.log")
    engine = EngineProcess(settings, main=scripted_engine.main)
    yield make_stage(engine, checkpoint, tmp_path)
    engine.kill()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.line.devices.runner.RESTARTS", (0.01, 0.02))


def test_the_engine_is_started_for_the_first_job_and_kept(stage: Stage):
    assert stage.runner.run(stage.work()).images[0].job_id == "job-1"
    pid = stage.engine.pid
    assert stage.runner.run(stage.work()).images[0].job_id == "job-2"
    assert stage.engine.pid == pid


def test_a_job_that_needed_32_bits_tells_nothing_of_others_time(stage: Stage):
    work = stage.work("wide")
    assert stage.runner.run(work).images
    assert not stage.journal.predictor.predict(work.params, work.model.family).is_known
    assert stage.runner.run(stage.work()).images
    assert stage.journal.predictor.predict(work.params, work.model.family).is_known


def test_a_job_that_can_not_be_done_in_time_is_not_begun(stage: Stage):
    stage.runner.run(stage.work(steps=400))  # it says that it took 50 ms a step
    begun_at = time.monotonic()
    with pytest.raises(TooLate, match=r"within the 2 s that the horde gives it; lower max_power"):
        stage.runner.run(stage.work("slow", steps=400, ttl_seconds=2))
    assert time.monotonic() - begun_at < 0.5
    assert all(row.stage is not JobStage.running for row in stage.journal.view().rows[1:])


def test_a_job_that_turns_out_too_slow_is_stopped_early_and_the_engine_lives(stage: Stage):
    stage.runner.run(stage.work())
    pid = stage.engine.pid
    begun_at = time.monotonic()
    with pytest.raises(TooLate):
        stage.runner.run(stage.work("slow", steps=400, ttl_seconds=4))
    assert time.monotonic() - begun_at < 2
    assert stage.runner.run(stage.work()).images
    assert stage.engine.pid == pid


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux' clocks")
def test_what_was_in_hand_over_a_laptops_sleep_is_too_late(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """The horde's time goes on in it, while time.monotonic() stands still."""
    slept_seconds = {time.CLOCK_BOOTTIME: 0}
    tell = time.clock_gettime

    def told(clock: int) -> float:
        return tell(clock) + slept_seconds.get(clock, 0)

    monkeypatch.setattr(time, "clock_gettime", told)
    at_work, waiting = stage.work("slow", steps=400), stage.work()
    with ThreadPoolExecutor(1) as feeder:
        running = feeder.submit(stage.runner.run, at_work)
        wait_for(lambda: _step_of(stage, at_work) >= 1, every=0.01)
        slept_seconds[time.CLOCK_BOOTTIME] = 2 * LONG_SECONDS
        with pytest.raises(TooLate, match="within the"):
            running.result(5)
        with pytest.raises(TooLate, match="within the"):
            stage.runner.run(waiting)
    assert stage.runner.run(stage.work()).images


def test_a_job_that_just_makes_it_is_not_stopped(stage: Stage):
    stage.runner.run(stage.work())
    assert stage.runner.run(stage.work("slow", steps=20, ttl_seconds=3)).images


def test_a_stopping_worker_begins_nothing_that_would_not_be_done(stage: Stage):
    stage.runner.run(stage.work(steps=400))
    stage.runner.stop_by(elapsed_seconds() + 5)
    assert stage.runner.run(stage.work("slow", steps=10)).images
    with pytest.raises(TooLate, match=STOPPING):
        stage.runner.run(stage.work("slow", steps=400))


@pytest.mark.parametrize("is_known", [True, False])
def test_a_job_at_work_that_would_take_too_long_is_given_back_at_the_stop(
    stage: Stage, is_known: bool
):
    """By its own steps, or while there are none yet, by the jobs before it."""
    if is_known:
        stage.runner.run(stage.work(steps=400))
    work = stage.work("stuck" if is_known else "slow", steps=400)
    ended: list[float] = []

    def run() -> None:
        with pytest.raises(TooLate, match=STOPPING):
            stage.runner.run(work)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    least_step = 1 if is_known else 3
    wait_for(lambda: _step_of(stage, work) >= least_step, every=0.01)
    stopped_at = time.monotonic()
    stage.runner.stop_by(elapsed_seconds() + 5)
    thread.join(20)
    assert ended, "it went on"
    assert ended[0] - stopped_at < 3
    assert stage.engine.is_alive


def _step_of(stage: Stage, work: Work) -> int:
    return next(row.step for row in stage.journal.view().rows if row.job_id == work.job.id)


def test_a_job_that_kills_the_engine_gets_one_more_try_and_is_faulted(stage: Stage):
    with pytest.raises(JobError, match=r"SIGKILL.*; a second engine did no better"):
        stage.runner.run(stage.work("kill"))
    assert stage.runner.run(stage.work()).images


def test_a_fault_of_the_card_is_held_against_no_model_and_no_lora(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    for number in range(4):
        with pytest.raises(JobError, match="unspecified launch failure; a second engine"):
            stage.runner.run(stage.work(f"lost {number}"))
        with pytest.raises(JobError, match="unspecified launch failure"):
            stage.runner.run(stage.work(str(number), lora="loser"))
        assert stage.runner.run(stage.work("")).images
    assert stage.offered.offer().models == (MODEL, OTHER)
    assert "not used any more" not in caplog.text


def test_a_card_that_fails_again_and_again_ends_the_worker_with_a_remedy(stage: Stage):
    for prompt in ("lost a", "lost b"):
        with pytest.raises(JobError):
            stage.runner.run(stage.work(prompt))
    with pytest.raises(EngineUnusable, match="6 times one after the other: reboot"):
        stage.runner.run(stage.work("lost c"))


def test_a_card_that_torch_has_no_kernels_for_ends_the_worker_at_the_first_job(stage: Stage):
    with pytest.raises(EngineUnusable, match=r"no kernels .*update-runtime\.sh"):
        stage.runner.run(stage.work("kernels"))
    assert stage.offered.offer().models == (MODEL, OTHER)


def offer_too(stage: Stage, name: str) -> None:
    stage.offered.add(replace(stage.model, name=name))


def test_a_model_that_kills_the_engine_three_times_leaves_the_offer(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    offer_too(stage, DEADLY)
    for prompt in ("a", "b"):
        with pytest.raises(JobError):
            stage.runner.run(stage.work(prompt, model=DEADLY))
    assert stage.offered.offer().models == (MODEL, OTHER)
    assert f"{DEADLY} is not offered any more" in caplog.text


def test_a_lora_that_kills_the_engine_three_times_is_banned_by_name(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    for model in (MODEL, OTHER):
        made = stage.runner.run(stage.work(lora="bad", model=model))
        assert [note.ref for note in made.notes] == ["bad"]
    assert stage.offered.offer().models == (MODEL, OTHER)
    assert "bad is not used any more" in caplog.text


def test_a_textual_inversion_that_kills_the_engine_three_times_is_banned_by_name(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    ti = stage.tis / "bad.safetensors"
    ti.parent.mkdir(exist_ok=True)
    ti.touch()
    for _ in range(2):
        made = stage.runner.run(stage.work("a embedding:bad cat"))
        assert [(note.type, note.ref) for note in made.notes] == [(MetadataType.TI, "bad")]
    assert f"{ti} is not used any more" in caplog.text
    assert stage.offered.offer().models == (MODEL, OTHER)


def test_a_job_that_fails_with_its_clients_files_is_made_without_them_and_that_is_noted(
    stage: Stage,
):
    work = stage.work("a embedding:nice cat", lora="odd")
    made = stage.runner.run(work)
    assert [image.job_id for image in made.images] == [work.job.id]
    assert [(note.type, note.value, note.ref) for note in made.notes] == [
        (MetadataType.LORA, MetadataValue.PARSE_FAILED, "odd"),
        (MetadataType.TI, MetadataValue.PARSE_FAILED, "nice"),
    ]


def test_prompts_that_kill_engines_are_never_held_against_the_model(stage: Stage):
    stage.offered.withdraw(OTHER, "it is broken")
    for number in range(4):
        with pytest.raises(JobError, match="a second engine did no better"):
            stage.runner.run(stage.work(f"kill {number}"))
    assert stage.offered.offer().models == (MODEL,)
    assert stage.runner.run(stage.work()).images


def test_a_request_that_failed_is_not_tried_again_when_it_comes_again(stage: Stage):
    bad = stage.work("kill")
    with pytest.raises(JobError, match="a second engine did no better"):
        stage.runner.run(bad)
    stage.runner.run(stage.work())
    pid = stage.engine.pid
    again = replace(bad, job=replace(bad.job, ids=("job-again",)))
    stage.journal.popped(again.job.slots, MODEL)
    with pytest.raises(JobError, match="it was the same request"):
        stage.runner.run(again)
    assert stage.engine.pid == pid


def test_a_failure_is_not_remembered_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.line.devices.failed_requests.BELIEVED_SECONDS", 0.0)
    bad = stage.work("kill")
    for _ in range(2):
        with pytest.raises(JobError, match=r"a second engine did no better$"):
            stage.runner.run(bad)


def test_a_stop_ends_the_trial_of_a_model(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.line.devices.blame.TRIAL", replace(TRIAL, steps=400))
    stage.runner.start(unless=threading.Event())
    work = stage.work()
    slow = replace(work, params=replace(work.params, width=SLOW_WIDTH))
    began = time.monotonic()
    for seconds in (0.3, 0.0):  # in the midst of it, and before
        stage.runner.stop_by(elapsed_seconds() + seconds)
        with pytest.raises(TooLate, match=STOPPING):
            stage.runner._blame._is_deadly(slow)
    assert time.monotonic() - began < 400 * STEP_SECONDS / 2
    assert stage.engine.is_alive


def test_the_last_model_that_leaves_ends_the_worker(stage: Stage):
    offer_too(stage, DEADLY)
    stage.offered.withdraw(MODEL, "it is broken")
    stage.offered.withdraw(OTHER, "it is broken")
    with pytest.raises(JobError):
        stage.runner.run(stage.work("a", model=DEADLY))
    with pytest.raises(EngineUnusable, match=r"no model is left.*the engine died of it"):
        stage.runner.run(stage.work("b", model=DEADLY))


def fail(stage: Stage, *works: Work) -> tuple[str, ...]:
    """The models that are offered after these jobs, none of which got a picture."""
    for work in works:
        with pytest.raises(JobError, match="shapes differ"):
            stage.runner.run(work)
    return stage.offered.offer().models


def test_a_model_that_fails_three_jobs_and_the_workers_own_leaves_the_offer(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    offer_too(stage, BROKEN)
    works = [stage.work(f"a {number}", model=BROKEN) for number in range(3)]
    assert fail(stage, *works[:2]) == (MODEL, OTHER, BROKEN)
    assert fail(stage, works[2]) == (MODEL, OTHER)
    told = f"{BROKEN} is not offered any more: sampler: shapes differ; the worker's own job fails"
    assert told in caplog.text


def test_nothing_that_clients_send_costs_a_model_its_place(stage: Stage):
    works = [stage.work(f"fail {number}") for number in range(4)]
    works += [stage.work(f"fail {number}", lora="odd") for number in range(4, 8)]
    assert fail(stage, *works) == (MODEL, OTHER)
    for _ in range(4):
        assert stage.runner.run(stage.work(lora="odd")).notes
    assert stage.offered.offer().models == (MODEL, OTHER)


def test_one_job_that_fails_and_comes_again_does_not_even_accuse_its_model(stage: Stage):
    offer_too(stage, BROKEN)
    again = stage.work(model=BROKEN)
    assert fail(stage, *[again] * 4) == (MODEL, OTHER, BROKEN)


def test_a_model_whose_trial_can_not_be_ended_in_time_stays(stage: Stage):
    offer_too(stage, BROKEN)
    works = [stage.work(f"a {number}", model=BROKEN) for number in range(3)]
    fail(stage, *works[:2])
    stage.hurry.set()
    with pytest.raises(JobError):
        stage.runner.run(works[2])
    assert BROKEN in stage.offered.models

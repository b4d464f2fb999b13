"""The engine as a child process: real processes, really killed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.measure.simulated import children
from hordelib import Engine
from hordelib.errors import (
    AuxiliaryBroken,
    Cancelled,
    EngineError,
    GenerationFailed,
    ModelMissing,
)
from hordelib.files.completeness import insist_on_whole
from hordelib.files.model import Model
from hordelib.job.families import SD1
from hordelib.job.images import Picture, SourceImage
from hordelib.job.params import FromImage, PostProcessor, ProcessorKind
from tests.hordelib.comfyui.test_finite import NAN, UNET, changed, poke
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference
from tests.support.sandbox_client import MODEL
from tests.support.tiny_networks import write_compact
from tests.worker.line.test_runner import OTHER, make_stage
from worker.children.engine import EngineProcess
from worker.children.messages import Cancel, EngineSettings
from worker.models.watch import ModelWatch

LONG = replace(SMALL, steps=300)


def settings(folder: Path, comfyui: Path | None = None) -> EngineSettings:
    return EngineSettings(comfyui, "auto", 256 << 20, None, folder / "engine.log")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineProcess]:
    process = EngineProcess(settings(tmp_path_factory.mktemp("engine")))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def running(child: EngineProcess) -> EngineProcess:
    """The child, started again where the test before has ended it."""
    if not child.is_alive:
        child.start()
    return child


def test_the_child_makes_the_picture_that_the_engine_makes(
    running: EngineProcess, engine: Engine, checkpoint: Path
):
    steps: list[int] = []
    theirs = running.generate(
        SMALL, Model.of_checkpoint(checkpoint), lambda done, _total: steps.append(done)
    )
    assert difference(theirs.images[0], engine.generate(SMALL, checkpoint).images[0]) == 0
    assert steps == sorted(set(steps))
    assert steps[-1] == SMALL.steps


@pytest.mark.parametrize(("steps", "job_seconds", "most_told"), [(300, 1.5, 3), (3, 4.5, 3)])
def test_of_short_steps_not_all_are_told(
    tmp_path: Path, checkpoint: Path, steps: int, job_seconds: float, most_told: int
):
    process = EngineProcess(settings(tmp_path), main=children(job_seconds).engine)
    process.start()
    told: list[int] = []
    job = replace(SMALL, steps=steps)
    process.generate(job, Model.of_checkpoint(checkpoint), lambda done, _: told.append(done))
    process.stop()
    assert told == sorted(set(told))
    assert told[-1] == steps
    assert 2 <= len(told) <= most_told


def test_a_failed_job_is_told_and_the_child_goes_on(
    running: EngineProcess, checkpoint: Path, tmp_path: Path
):
    pid = running.pid
    with pytest.raises(ModelMissing, match="nothing"):
        running.generate(
            SMALL, Model("nothing", SD1, {"checkpoint": tmp_path / "nothing.safetensors"})
        )
    assert running.generate(replace(SMALL, steps=1), Model.of_checkpoint(checkpoint)).images
    assert running.pid == pid


def test_a_model_is_in_main_memory_once_for_all_engines(
    running: EngineProcess, checkpoint: Path, tmp_path: Path
):
    path = changed(checkpoint, tmp_path / "wide.safetensors", as_the_processor_computes)
    drawing_bytes = sum(
        value.nbytes for name, value in load_file(path).items() if name.startswith(DRAWING)
    )
    second = EngineProcess(settings(tmp_path))
    second.start()
    for engine in (running, second):
        engine.generate(replace(SMALL, steps=1), Model.of_checkpoint(path))
    mapped, shares = zip(*(resident_bytes(it, path) for it in (running, second)), strict=True)
    second.stop()
    assert min(mapped) >= 0.9 * drawing_bytes, "each computes with the pages of the file"
    assert sum(shares) <= 1.1 * max(mapped), "and they are the same pages"


DRAWING = ("model.", "first_stage_model.")


def as_the_processor_computes(state: dict[str, Tensor]) -> None:
    """UNet and VAE in 32 bits, so that they are computed with as they are, as on a card."""
    for name in state:
        if name.startswith(DRAWING):
            state[name] = state[name].float()


def resident_bytes(engine: EngineProcess, path: Path) -> tuple[int, int]:
    """What the engine has of this file in main memory, and its share of that: pages that two
    processes have count half for each."""
    maps = psutil.Process(engine.pid).memory_maps(grouped=True)
    (found,) = [each for each in maps if each.path == str(path)]
    return found.rss, found.pss


def with_a_nan(checkpoint: Path, path: Path) -> None:
    poke(Path(shutil.copy(checkpoint, path)), f"{UNET}.out.2.bias", NAN)


def with_a_wide_output(checkpoint: Path, path: Path) -> None:
    """Its UNet gives twice as many channels as it takes, which the file's header may say."""

    def widen(state: dict[str, Tensor]) -> None:
        for name in (f"{UNET}.out.2.weight", f"{UNET}.out.2.bias"):
            state[name] = torch.cat([state[name], state[name]])

    changed(checkpoint, path, widen)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (with_a_nan, "sampler: the diffusion model gives values that are not numbers"),
        (with_a_wide_output, "sampler: RuntimeError: The size of tensor"),
    ],
)
def test_a_model_whose_file_fails_every_job_leaves_the_offer_until_it_changes(
    running: EngineProcess,
    checkpoint: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path, Path], None],
    told: str,
):
    path = tmp_path / "broken.safetensors"
    spoil(checkpoint, path)
    insist_on_whole(Model.of_checkpoint(path))
    stage = make_stage(running, path, tmp_path)
    watch = ModelWatch(stage.offered, lambda name: Model.of_checkpoint(path, name))
    for i in range(3):
        assert stage.offered.offer().models == (MODEL, OTHER)
        with pytest.raises(GenerationFailed, match=told):
            stage.runner.run(stage.work(f"a circle {i}", steps=1))
    assert stage.offered.offer().models == (OTHER,)
    assert f"{MODEL} is not offered any more: {told}" in caplog.text
    assert not [model for _ in range(2) for model in watch.look()]
    os.replace(shutil.copy(checkpoint, tmp_path / "whole"), path)
    assert MODEL in [model.name for _ in range(2) for model in watch.look()]


def test_no_series_of_hostile_jobs_costs_a_model_its_place(
    running: EngineProcess, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """As if clients had found sources that break the graph: the model has two trials."""
    caplog.set_level(logging.INFO)
    stage = make_stage(running, checkpoint, tmp_path)
    (tmp_path / "hostile").write_text("no LoRA")
    image = SourceImage.of_pil(Image.new("RGB", (64, 64)))
    object.__setattr__(image, "pixels", b"abc")
    for i in range(6):
        work = stage.work(f"{NAN} {i}", steps=1, lora=str(tmp_path / "hostile") if i % 2 else "")
        with pytest.raises(GenerationFailed, match="source"):
            stage.runner.run(replace(work, params=replace(work.params, source=FromImage(image))))
    assert stage.offered.offer().models == (MODEL, OTHER)
    assert caplog.text.count("it is not the model that jobs fail of") == 2
    assert stage.runner.run(stage.work("a circle", steps=1)).images


def test_a_broken_file_of_the_owners_costs_one_try_and_no_model(
    running: EngineProcess, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    stage = make_stage(running, checkpoint, tmp_path)
    path = tmp_path / "up.pth"
    path.write_bytes(b"<html>not found</html>")
    upscaler = PostProcessor("up", ProcessorKind.upscaler, path)

    def run() -> tuple[Picture, ...]:
        work = stage.work("a circle", steps=1, lora=str(tmp_path / "hostile"))
        (tmp_path / "hostile").write_text("no LoRA")
        upscaled = replace(work.params, post_processing=(upscaler,), embeddings_folder=None)
        return stage.runner.run(replace(work, params=upscaled)).images

    calls = running._calls
    for _ in range(2):  # the second time, nobody even tries
        with pytest.raises(AuxiliaryBroken, match=r"up\.pth: a web page"):
            run()
    assert running._calls == calls + 1
    assert stage.offered.offer().models == (MODEL, OTHER)
    assert f"{path}" in caplog.text
    write_compact(path)
    assert run()


def test_every_picture_bears_its_job_and_place(running: EngineProcess, checkpoint: Path):
    batch = replace(SMALL, steps=1, images=2)
    images = running.generate(batch, Model.of_checkpoint(checkpoint), job_id="a job").images
    assert [(each.job_id, each.index) for each in images] == [("a job", 0), ("a job", 1)]


def test_a_cancelled_job_stops_within_a_step_and_the_next_one_runs(
    running: EngineProcess, checkpoint: Path
):
    pid, model, steps = running.pid, Model.of_checkpoint(checkpoint), list[int]()

    def cancel(done: int, _total: int) -> None:
        steps.append(done)
        if len(steps) == 3:
            threading.Thread(target=running.cancel).start()

    with pytest.raises(Cancelled):
        running.generate(LONG, model, cancel)
    assert steps[-1] < LONG.steps
    running.cancel()  # there is nothing to cancel any more
    running._child.send(Cancel(running._calls), 5)  # nor when it was said before, and came late
    assert running.generate(replace(SMALL, steps=2), model).images
    assert running.pid == pid


def test_a_job_that_is_cancelled_before_it_comes_does_not_start(
    running: EngineProcess, checkpoint: Path
):
    steps: list[int] = []
    running._child.send(Cancel(running._calls + 1), 5)
    with pytest.raises(Cancelled):
        running.generate(
            LONG, Model.of_checkpoint(checkpoint), lambda done, _total: steps.append(done)
        )
    assert steps == []
    assert running.generate(replace(SMALL, steps=1), Model.of_checkpoint(checkpoint)).images


def test_a_job_that_nobody_waits_for_any_more_is_given_up(running: EngineProcess, checkpoint: Path):
    def lose_interest(_done: int, _total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        running.generate(LONG, Model.of_checkpoint(checkpoint), lose_interest)
    assert running.generate(replace(SMALL, steps=1), Model.of_checkpoint(checkpoint)).images


def test_a_crashed_child_is_noticed_at_once_and_replaced(running: EngineProcess, checkpoint: Path):
    killed_at: list[float] = []

    def kill(done: int, _total: int) -> None:
        if done > 1 and not killed_at:
            assert running.pid is not None
            os.kill(running.pid, signal.SIGSEGV)
            killed_at.append(time.monotonic())

    with pytest.raises(EngineError, match="SIGSEGV"):
        running.generate(LONG, Model.of_checkpoint(checkpoint), kill)
    assert time.monotonic() - killed_at[0] < 10, "a silent engine has longer"
    running.start()
    assert running.generate(replace(SMALL, steps=1), Model.of_checkpoint(checkpoint)).images


def test_a_child_that_cannot_start_says_why(tmp_path: Path):
    process = EngineProcess(settings(tmp_path, comfyui=tmp_path / "nowhere"))
    with pytest.raises(EngineError, match=r"ComfyUI is not in .*nowhere.*engine\.log"):
        process.start()
    assert not process.is_alive

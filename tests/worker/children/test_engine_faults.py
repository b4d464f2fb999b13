"""The engine as the bridge sees it when it hangs, dies, or mixes pictures up, in every phase."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from hordelib.engine import Generation
from hordelib.errors import EngineError
from hordelib.files.model import Model
from hordelib.job.families import SD1
from hordelib.job.images import Picture, SourceImage
from hordelib.job.params import FromImage, GenerationParams, PostProcessor, ProcessorKind
from worker.children.child_side import Child
from worker.children.engine import EngineProcess, Patience
from worker.children.messages import (
    Drawn,
    EngineSettings,
    Finished,
    Generate,
    Loaded,
    Ready,
    Stepped,
)

NOTICED_SECONDS = 10.0  # on a busy machine; half of what a child is otherwise waited for
MODEL = Model("a model", SD1, {})
JOB = GenerationParams(prompt="", width=64, height=64, seed=11, images=2, steps=2)
PATIENT = Patience(start=20, heartbeat=20, load=20, first_step=20, step=20, decode=20, job=20)


@contextmanager
def engine_of(
    main: Callable[[Any, Any], None], folder: Path, what: str = "", patience: Patience = PATIENT
) -> Generator[EngineProcess]:
    """Its child is told `what` to do in the place of its device's name."""
    settings = EngineSettings(None, what, 0, None, folder / "engine.log")
    engine = EngineProcess(settings, patience, main)
    engine.start()
    try:
        yield engine
    finally:
        engine.kill()


def stop_there(pipe: Connection, settings: EngineSettings) -> None:
    """Comes as far as the phase it is told, and does there what it is told: `hang in loading`."""
    what, phase = settings.device.split(" in ")
    child = Child(pipe)
    child.report(Ready("a device"))
    for job in child.commands():
        for name, report in {
            "loading": None,
            "the first step": Loaded(job.number),
            "a step": Stepped(job.number, 1, 2),
            "decoding": Stepped(job.number, 2, 2),
        }.items():
            if report is not None:
                child.report(report)
            if name == phase:
                ENDS[what]()


ENDS: dict[str, Callable[[], object]] = {
    "hang": threading.Event().wait,
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def step_without_end(pipe: Connection, _settings: EngineSettings) -> None:
    child = Child(pipe)
    child.report(Ready("a device"))
    for job in child.commands():
        child.report(Loaded(job.number))
        while True:
            child.report(Stepped(job.number, 1, 2))
            time.sleep(0.1)


def never_read(pipe: Connection, _settings: EngineSettings) -> None:
    pipe.send(Ready("a device"))
    threading.Event().wait()


def draw(pipe: Connection, settings: EngineSettings) -> None:
    """Gives the pictures of a table's row."""
    child = Child(pipe)
    child.report(Ready("a device"))
    for job in child.commands():
        for report in ALBUMS[settings.device](job):
            child.report(report)


def _pictures(job: Generate, more: int = 0) -> list[Picture]:
    (member,) = job.members
    params, job_id = member.params, member.job_id
    return [
        Picture(64, 64, bytes(64 * 64 * 3), params.image_seed(i), job_id=job_id, index=i)
        for i in range(params.images + more)
    ]


def _told(job: Generate, *pictures: Picture, number: int = 0) -> list[Drawn | Finished]:
    """The reports that hand these pictures over."""
    call = number or job.number
    return [*(Drawn(call, each) for each in pictures), Finished(call, (Generation((), 0, 0),))]


def _with(job: Generate, **changes: Any) -> list[Drawn | Finished]:
    first, *others = _pictures(job)
    return _told(job, replace(first, **changes), *others)


ALBUMS: dict[str, Callable[[Generate], list[Drawn | Finished]]] = {
    "as asked": lambda job: _told(job, *_pictures(job)),
    "too few": lambda job: _told(job, *_pictures(job)[:1]),
    "none": lambda job: _told(job),
    "too many": lambda job: _told(job, *_pictures(job, more=1))[:-1],
    "one twice": lambda job: _told(job, *_pictures(job)[:1], *_pictures(job)[:1]),
    "out of order": lambda job: _told(job, *reversed(_pictures(job))),
    "of another job": lambda job: _with(job, job_id="another"),
    "of another seed": lambda job: _with(job, seed=12),
    "of another size": lambda job: _with(job, width=32, height=128),
    "of another call": lambda job: _told(job, *_pictures(job), number=job.number + 1),
}


@pytest.mark.parametrize(
    ("phase", "limit", "told"),
    [
        ("loading", {"load": 0.5}, "0.5 s to load the model"),
        ("the first step", {"first_step": 0.6}, "0.6 s to come to the first step"),
        ("a step", {"step": 0.7}, "0.7 s for a sampler step"),
        ("decoding", {"decode": 0.8}, "0.8 s to decode the pictures"),
    ],
)
def test_each_phase_has_its_own_limit_which_the_error_names(
    tmp_path: Path, phase: str, limit: dict[str, float], told: str
):
    patience = replace(PATIENT, **limit)
    with engine_of(stop_there, tmp_path, f"hang in {phase}", patience) as engine:
        began = time.monotonic()
        with pytest.raises(EngineError, match=f"the engine took longer than {told}"):
            engine.generate(JOB, MODEL)
        assert time.monotonic() - began < NOTICED_SECONDS
        assert not engine.is_alive


def test_a_job_that_never_ends_is_ended(tmp_path: Path):
    with engine_of(step_without_end, tmp_path, patience=replace(PATIENT, job=0.5)) as engine:
        with pytest.raises(EngineError, match=r"longer than 0\.5 s for a whole job"):
            engine.generate(JOB, MODEL)
        assert not engine.is_alive


@pytest.mark.parametrize("phase", ["loading", "the first step", "a step", "decoding"])
def test_a_death_is_noticed_in_every_phase(tmp_path: Path, phase: str):
    with engine_of(stop_there, tmp_path, f"die in {phase}") as engine:
        began = time.monotonic()
        with pytest.raises(EngineError, match="the engine process was ended by SIGKILL"):
            engine.generate(JOB, MODEL)
        assert time.monotonic() - began < NOTICED_SECONDS


def test_an_engine_that_freezes_is_seen_to_be_silent_and_killed(tmp_path: Path):
    seen: list[float] = []
    patience = replace(PATIENT, heartbeat=2)
    with engine_of(stop_there, tmp_path, "freeze in a step", patience) as engine:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                seen.append(engine.silent_seconds)

        owner = threading.Thread(target=look)
        owner.start()
        with pytest.raises(EngineError, match="the engine hung: no word for 2 s"):
            engine.generate(JOB, MODEL)
        over.set()
        owner.join()
    assert 1 < max(seen) < 2 + NOTICED_SECONDS


def test_what_no_graph_can_be_made_of_is_not_read_ahead(tmp_path: Path):
    """Who asks for that can do nothing about it: the job itself fails, when it has its turn."""
    without_source = replace(JOB, return_control_map=True)
    prepared: list[int] = []

    def prepare(done: int, _total: int) -> None:
        engine.prepare(without_source, MODEL)
        prepared.append(done)

    patience = replace(PATIENT, job=0.5)
    with (
        engine_of(step_without_end, tmp_path, patience=patience) as engine,
        pytest.raises(EngineError, match="longer than"),
    ):
        engine.generate(JOB, MODEL, prepare)
    assert prepared


def test_an_engine_that_does_not_take_a_large_job_is_killed(tmp_path: Path):
    side = 3072
    source = FromImage(SourceImage(side, side, "RGB", bytes(side * side * 3)))
    patience = replace(PATIENT, heartbeat=0.5)
    with engine_of(never_read, tmp_path, patience=patience) as engine:
        with pytest.raises(EngineError, match=r"the engine hung: it read nothing for 0\.5 s"):
            engine.generate(replace(JOB, source=source), MODEL)
        assert not engine.is_alive


def test_pictures_come_with_their_job_and_place(tmp_path: Path):
    with engine_of(draw, tmp_path, "as asked") as engine:
        for job_id in ("a", "b"):
            images = engine.generate(JOB, MODEL, job_id=job_id).images
            assert [(each.job_id, each.index, each.seed) for each in images] == [
                (job_id, 0, 11),
                (job_id, 1, 12),
            ]


@pytest.mark.parametrize("album", sorted(set(ALBUMS) - {"as asked"}))
def test_pictures_that_are_not_exactly_those_asked_for_are_never_used(tmp_path: Path, album: str):
    with engine_of(draw, tmp_path, album) as engine:
        with pytest.raises(EngineError, match="not asked for"):
            engine.generate(JOB, MODEL, job_id="a")
        assert not engine.is_alive


def test_post_processing_may_change_the_size(tmp_path: Path):
    upscaler = PostProcessor("up", ProcessorKind.upscaler, tmp_path / "up.pth")
    with engine_of(draw, tmp_path, "of another size") as engine:
        enlarged = replace(JOB, post_processing=(upscaler,))
        assert len(engine.generate(enlarged, MODEL, job_id="a").images) == 2

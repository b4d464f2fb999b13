"""What runs in a simulated worker's children: an engine and a judge that only take their time.

They import no more than the worker's own children do: chaos starts thousands of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection

from hordelib.engine import Engine, Generation, OnLoaded, OnStep, unawaited, unwatched
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.job.batching import Member
from hordelib.job.images import Picture
from hordelib.job.params import GenerationParams, images_of
from hordelib.safety.verdict import Verdict
from worker.children.child_side import Child, set_up_process
from worker.children.engine_main import EngineChild
from worker.children.judge_main import HEARTBEAT_SECONDS
from worker.children.messages import Asked, EngineSettings, Judged, JudgeSettings, Ready, Unjudged

ANY_NUMBER = 1_000_000_000  # of drops that a worker of such children may have
WHAT = "a simulation"

Draw = Callable[[GenerationParams, Model, int], Picture]


class SimulatedEngine(Engine):
    """Takes `job_seconds` for a job's steps, whatever it is, and has `draw` make its pictures."""

    def __init__(self, draw: Draw, job_seconds: float = 0.0):
        self._draw = draw
        self._job_seconds = job_seconds

    def start(self) -> str:
        return WHAT

    def generate_together(
        self,
        members: Sequence[Member],
        model: Model,
        on_step: OnStep = unwatched,
        *,
        on_loaded: OnLoaded = unawaited,
    ) -> tuple[Generation, ...]:
        started = time.perf_counter()
        on_loaded()
        steps = members[0].params.steps
        for step in range(1, steps + 1):
            _sleep_until(started + self._job_seconds * step / steps)
            on_step(step, steps)
        seconds = time.perf_counter() - started
        return tuple(
            Generation(
                self._pictures(member, model),
                load_seconds=0.0,
                run_seconds=seconds,
                answers=answers_of(member.params),
            )
            for member in members
        )

    def read_ahead(self, keys: Collection[ModelKey]) -> Future[None]:
        """There is nothing to read."""
        return Future()

    def close(self) -> None:
        """There is nothing to let go of."""

    def _pictures(self, member: Member, model: Model) -> tuple[Picture, ...]:
        return tuple(
            replace(self._draw(member.params, model, index), job_id=member.job_id, index=index)
            for index in range(member.params.pictures)
        )


def answers_of(params: GenerationParams) -> tuple[str, ...]:
    """To a question about a picture: which picture it is."""
    if params.question is None:
        return ()
    return tuple(f"{params.question.topic} {each.digest}" for each in images_of(params).values())


def serve_verdicts(pipe: Connection, answer: Callable[[Asked], Judged | Unjudged]) -> None:
    """What a judge's child does all its life."""
    child = Child(pipe, HEARTBEAT_SECONDS)
    child.report(Ready(WHAT))
    for asked in child.commands():
        child.report(answer(asked))


def engine(job_seconds: float, pipe: Connection, settings: EngineSettings) -> None:
    set_up_process(settings.log_file)
    EngineChild(Child(pipe), SimulatedEngine(_draw, job_seconds)).serve()


def judge(pipe: Connection, settings: JudgeSettings) -> None:
    set_up_process(settings.log_file)
    serve_verdicts(pipe, lambda asked: Judged(asked.job_id, asked.index, Verdict(nsfw=False)))


def _draw(params: GenerationParams, _: Model, index: int) -> Picture:
    """One colour all over, which follows from the seed."""
    seed = params.image_seed(index)
    colour = seed.to_bytes(8)[-3:]
    return Picture(params.width, params.height, colour * (params.width * params.height), seed)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))

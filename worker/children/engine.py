"""The bridge's side of the engine child: give it jobs, and notice that it died under one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from hordelib.engine import Generation, OnStep, unwatched
from hordelib.errors import EngineError, JobError
from hordelib.files.model import Model
from hordelib.graphs.build import build_graph
from hordelib.graphs.node_names import model_keys
from hordelib.job.batching import Member
from hordelib.job.images import Picture
from hordelib.job.params import GenerationParams
from worker.children import engine_main
from worker.children.messages import (
    Cancel,
    Drawn,
    EngineReport,
    EngineSettings,
    Failed,
    Finished,
    Generate,
    Loaded,
    ReadAhead,
    Stepped,
)
from worker.children.supervisor import Limit, Supervisor


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child may take, in seconds, before it counts as hung and is killed."""

    start: float = 180  # import torch and ComfyUI
    heartbeat: float = 15  # any word at all, once started
    load: float = 120  # read the files that a job needs
    first_step: float = 120  # encode the prompt, move weights to the card
    step: float = 60  # from one step to the next
    decode: float = 120  # after a last step: to the pictures, or to the next round of steps
    job: float = 600  # the whole job

    def after_step(self, done: int, total: int) -> Limit:
        if done < total:
            return Limit(self.step, "for a sampler step")
        return Limit(self.decode, "to decode the pictures")


class EngineProcess:
    """One spawned child that owns one device.

    Used by one thread, but for `prepare`, `cancel` and `kill`.

    `main` is what the child runs; tests put one that fails on purpose in its place.
    """

    def __init__(
        self,
        settings: EngineSettings,
        patience: Patience | None = None,
        main: Callable[[Any, Any], None] = engine_main.main,
    ):
        self._patience = patience or Patience()
        self._child = Supervisor(
            "engine", main, settings, log_file=settings.log_file, gone=EngineError
        )
        self._calls = 0
        self._running = 0  # the number of the call at work; 0 is none

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive

    @property
    def silent_seconds(self) -> float:
        """Since the last word of a started child, from any thread: above 2, it does not answer."""
        return self._child.silent_seconds

    def start(self) -> str:
        """Spawn the child and return its device's name once ComfyUI is loaded there.

        Raises EngineError when it dies, can't load ComfyUI, or is silent for too long.
        """
        return self._child.start(self._patience.start)

    def generate(
        self,
        params: GenerationParams,
        model: Model,
        on_step: OnStep = unwatched,
        *,
        job_id: str = "",
    ) -> Generation:
        """Have the child make the job's pictures; each bears `job_id` and its place.

        Raises what `generate_together` does.
        """
        (generation,) = self.generate_together([Member(job_id, params)], model, on_step)
        return generation

    def generate_together(
        self, members: Sequence[Member], model: Model, on_step: OnStep = unwatched
    ) -> tuple[Generation, ...]:
        """Have the child make the pictures of jobs in one batch, as Engine.generate_together does.

        Raises the child's JobError (Cancelled after `cancel`), or EngineError when the child is at
        fault or gone; it is dead then, and `start` gives a new one.
        """
        self._calls += 1
        job = Generate(self._calls, tuple(members), model)
        self._running = job.number
        try:
            self._child.send(job, self._patience.heartbeat)
            return self._follow(job, on_step)
        except EngineError:
            raise
        except BaseException:  # of `on_step`, or Ctrl-C; a job that failed is over anyway
            self.cancel()
            raise
        finally:
            self._running = 0

    def prepare(self, params: GenerationParams, model: Model) -> None:
        """Have the files that this job will need read while another one is at work.

        From any thread; nothing is waited for, and nothing raised: the job itself will.
        """
        if self._running:
            with suppress(EngineError, JobError):
                keys = tuple(model_keys(build_graph(params, model)))
                self._child.send(ReadAhead(keys), self._patience.heartbeat)

    def cancel(self) -> None:
        """Stop the job at work, from any thread: it raises Cancelled within a step.

        The child goes on. Without a job, nothing.
        """
        if number := self._running:
            with suppress(EngineError):  # that is for `generate` to raise
                self._child.send(Cancel(number), self._patience.heartbeat)

    def stop(self, timeout: float = 10) -> None:
        """Let the child end by itself, and kill it when that takes more than `timeout` seconds."""
        self._child.stop(timeout)

    def kill(self) -> None:
        """End the child at once; safe at any time, from any thread."""
        self._child.kill()

    def _follow(self, job: Generate, on_step: OnStep) -> tuple[Generation, ...]:
        patience = self._patience
        whole = Limit(patience.job, "for a whole job")
        limit = Limit(patience.load, "to load the model")
        expected = _ExpectedPictures(job)
        while True:
            match self._next_report(job, whole, limit):
                case Loaded():
                    limit = Limit(patience.first_step, "to come to the first step")
                case Stepped(_, int(done), int(total)):
                    limit = patience.after_step(done, total)
                    on_step(done, total)
                case Drawn(_, Picture() as picture) if expected.takes(picture):
                    expected.pictures.append(picture)
                case Finished(_, generations) if expected.completes(generations):
                    return expected.bound(generations)
                case Failed(_, JobError() as error):
                    raise error
                case report:
                    self._child.fail(f"the engine gave what was not asked for: {_brief(report)}")

    def _next_report(self, job: Generate, *limits: Limit) -> EngineReport:
        """What the child says of the job; of those before, which were given up, it may still."""
        while True:
            report = self._child.receive(*limits, silence=self._patience.heartbeat)
            is_ours = isinstance(report, EngineReport)
            if is_ours and report.number == job.number:
                return report
            if not is_ours or report.number not in range(1, job.number):
                self._child.fail(f"the engine spoke of what was not asked for: {_brief(report)}")


class _ExpectedPictures:
    """The pictures of a call as they come: exactly those that it asked for, in their order."""

    def __init__(self, job: Generate):
        self._members = job.members
        self._wanted = [
            (member, index) for member in job.members for index in range(member.params.pictures)
        ]
        self.pictures: list[Picture] = []

    def takes(self, picture: Picture) -> bool:
        if len(self.pictures) == len(self._wanted):
            return False
        member, index = self._wanted[len(self.pictures)]
        params = member.params
        wanted = (member.job_id, index, params.image_seed(index))
        has_size = (picture.width, picture.height) == (params.width, params.height)
        is_wanted = (picture.job_id, picture.index, picture.seed) == wanted
        return is_wanted and (has_size or bool(params.post_processing))

    def completes(self, generations: Sequence[Generation]) -> bool:
        is_full = len(self.pictures) == len(self._wanted)
        return (
            is_full
            and len(generations) == len(self._members)
            and all(map(_is_answered, self._members, generations))
        )

    def bound(self, generations: Sequence[Generation]) -> tuple[Generation, ...]:
        """Each job's generation with its pictures."""
        left = iter(self.pictures)
        return tuple(
            replace(generation, images=tuple(islice(left, member.params.pictures)))
            for member, generation in zip(self._members, generations, strict=True)
        )


def _is_answered(member: Member, generation: Generation) -> bool:
    asks = member.params.question or member.params.scoring
    return len(generation.answers) == (member.params.images if asks else 0)


def _brief(report: object) -> str:
    match report:
        case Drawn(_, Picture() as picture):
            size = f"{picture.width}x{picture.height}"
            return f"image {picture.index} of job {picture.job_id!r}, {size}, seed {picture.seed}"
        case Finished():
            return "another number of pictures"
        case _:
            return type(report).__name__

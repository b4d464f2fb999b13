"""Dreamer's engine. Jobs that wait at once and agree share a batch, as the worker has them do."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.protocol import Job, Setup, path_in, serve
from hordelib import Engine, GenerationParams
from hordelib.comfyui import memory_hooks
from hordelib.files.model import Model
from hordelib.files.model_key import CHECKPOINT_PARTS, ModelKey
from hordelib.job.batching import Member, share_key
from hordelib.job.params import Lora
from hordelib.job.samplers import SAMPLERS

if TYPE_CHECKING:
    from hordelib.memory.parts import LoadedPart


class Ours:
    def __init__(self, engine: Engine, setup: Setup):
        self.reads = 0
        self._engine = engine
        self._setup = setup
        self._models: dict[str, Model] = {}

    def make(self, jobs: Sequence[Job]) -> list[bytes]:
        members = [
            (self._model(job), Member(str(i), self._params(job))) for i, job in enumerate(jobs)
        ]
        groups = groupby(
            members, lambda each: (each[0].name, share_key(each[1].params, each[0].family))
        )
        made: list[bytes] = []
        for _, group in groups:
            together = list(group)
            generations = self._engine.generate_together(
                [each for _, each in together], together[0][0]
            )
            made += [picture.pixels for each in generations for picture in each.images]
        return made

    def count(self, key: ModelKey) -> None:
        """A file has been read; of a checkpoint's parts one counts."""
        self.reads += key.kind == "checkpoint" and key.variant == CHECKPOINT_PARTS[0]

    def _model(self, job: Job) -> Model:
        """What the worker keeps for each model that it serves."""
        if job.checkpoint not in self._models:
            path = path_in(self._setup.checkpoints, job.checkpoint)
            self._models[job.checkpoint] = Model.of_checkpoint(path)
        return self._models[job.checkpoint]

    def _params(self, job: Job) -> GenerationParams:
        lora = Lora(job.lora, Path(path_in(self._setup.loras, job.lora)))
        return GenerationParams(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            width=job.width,
            height=job.height,
            seed=job.seed,
            images=job.images,
            steps=job.steps,
            cfg=job.cfg,
            sampler=SAMPLERS["k_euler"],
            loras=(lora,) if job.lora else (),
        )


@contextmanager
def start(setup: Setup) -> Generator[Ours]:
    with Engine(comfyui=Path(setup.comfyui)) as engine:
        ours = Ours(engine, setup)
        _tell_of_reads(ours)
        yield ours


def _tell_of_reads(ours: Ours) -> None:
    read = memory_hooks.read_part

    def counted(key: ModelKey) -> LoadedPart:
        ours.count(key)
        return read(key)

    memory_hooks.read_part = counted  # before the engine, which looks it up when it starts


if __name__ == "__main__":
    serve(start)

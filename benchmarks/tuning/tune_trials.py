"""What a whole job would take, measured by a few of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from hordelib import Engine, GenerationParams
from hordelib.comfyui.phases import SAMPLING
from hordelib.files.model import Model
from hordelib.job.samplers import SAMPLERS
from worker.sandbox.rules import pricing
from worker.sandbox.wire import Params

STEPS = 30  # of the job that is reckoned with, as the horde does where a client names none
MINIMUM_SECONDS = 150  # of any time limit


@dataclass(slots=True)
class Trials:
    """Runs jobs of `steps` steps, `repeats` times after one of a step that warms up."""

    engine: Engine
    steps: int
    repeats: int
    _seed: int = field(default=0, init=False)

    def job_seconds(self, model: Model, side: int, images: int = 1) -> float:
        """Of a job of 30 steps. Raises OutOfMemory where there is no room for it."""
        self._run(model, side, images, steps=1)
        runs = (self._run(model, side, images, self.steps) for _ in range(self.repeats))
        return median(
            _whole(seconds, sampling / self.steps, self.steps) for seconds, sampling in runs
        )

    def _run(self, model: Model, side: int, images: int, steps: int) -> tuple[float, float]:
        self._seed += images
        params = GenerationParams(
            prompt=f"number {self._seed}",  # never one whose result ComfyUI still has
            width=side,
            height=side,
            images=images,
            seed=self._seed,
            steps=steps,
            sampler=SAMPLERS["k_euler"],
        )
        made = self.engine.generate(params, model)
        return made.run_seconds, made.phases[SAMPLING]


def _whole(seconds: float, step_seconds: float, steps: int) -> float:
    return seconds + step_seconds * (STEPS - steps)


def limit_seconds(side: int, family: str, *, extra_slow: bool) -> int:
    """The horde's time limit of one picture (`ttl`)."""
    params = Params.model_construct(
        width=side, height=side, steps=STEPS, sampler_name="k_euler", control_type=None
    )
    return pricing.time_to_live(
        params, family, extra_slow=extra_slow, minimum_seconds=MINIMUM_SECONDS
    )


def megapixelsteps(side: int) -> float:
    return side * side * STEPS / 1e6

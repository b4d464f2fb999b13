"""Spacings of the noise levels: those that ComfyUI has as nodes, and what its own lack."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import comfy.samplers
import torch
from comfy.k_diffusion import utils
from comfy.k_diffusion.utils import append_dims
from comfy.samplers import SCHEDULER_HANDLERS, KSampler, SchedulerHandler
from torch import Tensor

GITS_COEFFICIENT = 1.20  # which of the node's tables; its default, and the horde's
TABLES = ("SD1", "SDXL")  # of AlignYourSteps


def install() -> None:
    """ComfyUI looks each of them up in its tables at each call; all passes of a job do."""
    SCHEDULER_HANDLERS["kl_optimal"] = SchedulerHandler(kl_optimal, use_ms=False)
    SCHEDULER_HANDLERS["gits"] = SchedulerHandler(gits, use_ms=False)
    for table in TABLES:
        name = f"align_your_steps_{table}"
        SCHEDULER_HANDLERS[name] = SchedulerHandler(_align_your_steps(table), use_ms=False)
    KSampler.SCHEDULERS[:] = list(SCHEDULER_HANDLERS)
    utils.append_dims = _with_dims


def _with_dims(x: Tensor, target_dims: int) -> Tensor:
    """ComfyUI's `append_dims`, but that a single level stays one: of the CPU's, those alone may be
    used with tensors of a card."""
    return x if x.ndim == 0 else append_dims(x, target_dims)


def noise_levels(
    model: Any, *, steps: int, sampler_name: str, scheduler: str, denoise: float = 1.0
) -> Tensor:
    """KSampler's levels for so many steps, from the first to the last, each once.

    Some schedules repeat levels if there are more steps than the model has; a step between equal
    ones does nothing, and solvers of a higher order divide by its length.
    """
    schedule = KSampler(
        _WithLevelsOnCpu(model),
        steps=steps,
        device=torch.device("cpu"),
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    )
    first, rest = schedule.sigmas[:1], schedule.sigmas[1:]
    return torch.cat([first, rest[rest != schedule.sigmas[:-1]]])


class _WithLevelsOnCpu:
    """What KSampler asks of a ModelPatcher for its schedule."""

    def __init__(self, model: Any):
        sampling = model.get_model_object("model_sampling")
        self._sampling = copy.deepcopy(sampling).to(torch.device("cpu"))

    def get_model_object(self, _name: str) -> Any:
        return self._sampling


def kl_optimal(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """ComfyUI's for `n` steps; its formula divides by n - 1.

    A single step goes from the largest noise level to none, as with all the others.
    """
    if n > 1:
        return comfy.samplers.kl_optimal_scheduler(n, sigma_min, sigma_max)
    return torch.tensor([sigma_max, 0.0])


def gits(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """ComfyUI's node GITSScheduler, whose tables begin with 2 steps; from 21 on it interpolates."""
    del sigma_min
    if n == 1:
        return torch.tensor([sigma_max, 0.0])
    tables = import_module("comfy_extras.nodes_gits").NOISE_LEVELS[GITS_COEFFICIENT]
    return _to_zero(tables[n - 2] if n <= len(tables) + 1 else _spread(tables[-1], n))


def _align_your_steps(table: str) -> Any:
    """ComfyUI's node AlignYourStepsScheduler for a family."""

    def levels(n: int, sigma_min: float, sigma_max: float) -> Tensor:
        del sigma_min, sigma_max
        known = import_module("comfy_extras.nodes_align_your_steps").NOISE_LEVELS[table]
        return _to_zero(known if n + 1 == len(known) else _spread(known, n))

    return levels


def _spread(levels: list[float], n: int) -> Any:
    """For n steps, evenly in logarithms between those that are known."""
    return import_module("comfy_extras.nodes_gits").loglinear_interp(levels, n + 1)


def _to_zero(levels: Any) -> Tensor:
    spaced = torch.FloatTensor(levels)
    spaced[-1] = 0
    return spaced

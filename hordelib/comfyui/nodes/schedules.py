"""ComfyUI's spacings of the noise levels, where they are undefined."""

from __future__ import annotations

import comfy.samplers
import torch
from comfy.samplers import SCHEDULER_HANDLERS, SchedulerHandler
from torch import Tensor


def install() -> None:
    """ComfyUI looks each of them up in its table at each call."""
    SCHEDULER_HANDLERS["kl_optimal"] = SchedulerHandler(kl_optimal, use_ms=False)


def kl_optimal(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """ComfyUI's for `n` steps; its formula divides by n - 1.

    A single step goes from the largest noise level to none, as with all the others.
    """
    if n > 1:
        return comfy.samplers.kl_optimal_scheduler(n, sigma_min, sigma_max)
    return torch.tensor([sigma_max, 0.0])

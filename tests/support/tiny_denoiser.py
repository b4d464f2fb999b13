"""A model that knows what it denoises: for ComfyUI's sampler functions, without a network.

Its pictures are a pattern with some variance; what it predicts is what an ideal network would, bent
a little, so that solvers of a higher order differ.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

SPREAD = 0.5  # standard deviation of a pixel among its pictures
CFG = 1.5


class TinyDenoiser:
    """Takes the place of ComfyUI's CFGGuider. `calls` counts its runs, as a network's."""

    def __init__(self, *, is_flow: bool = False, shape: tuple[int, ...] = (4, 8, 8)):
        kinds = import_module("comfy.model_sampling")
        bases = (
            (kinds.ModelSamplingDiscreteFlow, kinds.CONST)
            if is_flow
            else (kinds.ModelSamplingDiscrete, kinds.EPS)
        )
        self.model_sampling = type("Sampling", bases, {})()
        self.is_flow = is_flow
        self.model, self.cfg = self, CFG  # which newer ComfyUIs log
        self.calls = 0
        self.pattern = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    @property
    def inner_model(self) -> TinyDenoiser:
        return self

    @property
    def model_patcher(self) -> TinyDenoiser:
        return self

    def get_model_object(self, name: str) -> Any:
        assert name == "model_sampling"
        return self.model_sampling

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        del seed
        self.calls += 1
        level = sigma.reshape(-1, 1, 1, 1)
        cond = self._denoised(x, level, self.pattern)
        uncond = self._denoised(x, level, torch.zeros_like(self.pattern))
        denoised = uncond + CFG * (cond - uncond)
        for function in (model_options or {}).get("sampler_post_cfg_function", []):
            denoised = function({"denoised": denoised, "uncond_denoised": uncond})
        return denoised

    def _denoised(self, x: Tensor, level: Tensor, mean: Tensor) -> Tensor:
        share = 1 - level if self.is_flow else torch.ones_like(level)
        gain = share * SPREAD**2 / (share**2 * SPREAD**2 + level**2)
        ideal = mean + gain * (x - share * mean)
        return ideal + 0.1 * torch.sin(3 * ideal)

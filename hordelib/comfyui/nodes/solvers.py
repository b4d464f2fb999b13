"""Sampler functions that ComfyUI lacks, or has without an option or a limit that jobs need.

Each is called as those of comfy/k_diffusion/sampling.py are: `model(x, sigma, **extra_args)` gives
the denoised picture, (B, C, H, W), and `sigmas` are the noise levels from the first to the last.
`noise_sampler(sigma, sigma_next)` draws for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import comfy.k_diffusion.sampling as k_diffusion
import comfy.samplers
import torch
from comfy.model_sampling import CONST
from torch import Tensor

from hordelib.job.samplers import most_iterations

Callback = Callable[[dict[str, Any]], None]
Draw = Callable[[Tensor, Tensor], Tensor]
LEAST_FLOW_ETA = 1e-3  # less noise is lost in rounding; its share may be the root of a number < 0
FINISHED = 1e-5  # in logarithms of noise levels: how near to the last one dpm_adaptive stops


def lcm(model: Any, x: Tensor, sigmas: Tensor, *, s_noise: float = 1.0, **common: Any) -> Tensor:
    """ComfyUI's, with the noise of each step in multiples of the usual.

    So has it ComfyUI 0.33 where `s_noise_end` is not given (comfy/k_diffusion/sampling.py); 0.3.75
    has no such option.
    """
    draw: Draw = common.pop("noise_sampler")

    def scaled(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return s_noise * draw(sigma, sigma_next)

    return k_diffusion.sample_lcm(model, x, sigmas, noise_sampler=scaled, **common)


def euler_ancestral(
    model: Any, x: Tensor, sigmas: Tensor, *, eta: float = 1.0, **common: Any
) -> Tensor:
    """ComfyUI's, with flow models too without noise or with little of it."""
    eta = 0.0 if _is_too_little(eta, model) else eta
    return k_diffusion.sample_euler_ancestral(model, x, sigmas, eta=eta, **common)


def dpmpp_2s_ancestral(
    model: Any, x: Tensor, sigmas: Tensor, *, eta: float = 1.0, **common: Any
) -> Tensor:
    """The same of DPM-Solver++(2S)."""
    eta = 0.0 if _is_too_little(eta, model) else eta
    return k_diffusion.sample_dpmpp_2s_ancestral(model, x, sigmas, eta=eta, **common)


def dpm_2_ancestral(
    model: Any, x: Tensor, sigmas: Tensor, *, eta: float = 1.0, **common: Any
) -> Tensor:
    """The same of DPM-Solver-2, whose steps without noise are another function in ComfyUI."""
    if not _is_too_little(eta, model):
        return k_diffusion.sample_dpm_2_ancestral(model, x, sigmas, eta=eta, **common)
    noiseless = {name: common[name] for name in ("extra_args", "callback", "disable")}
    return k_diffusion.sample_dpm_2(model, x, sigmas, **noiseless)


def _is_too_little(eta: float, model: Any) -> bool:
    is_flow = isinstance(model.inner_model.inner_model.model_sampling, CONST)
    return is_flow and eta < LEAST_FLOW_ETA


def uni_pc(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """ComfyUI's, which has no formula for a single step; it writes into the noise levels."""
    if len(sigmas) == 2:
        return _single_step(model, x, sigmas, **common)
    function = comfy.samplers.sampler_object("uni_pc").sampler_function
    return function(model, x, sigmas, **common)


def uni_pc_bh2(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """The same with its other choice of B(h)."""
    return uni_pc(model, x, sigmas, variant="bh2", **common)


def dpm_fast(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """ComfyUI's (comfy/samplers.py, ksampler), which makes no single step."""
    if len(sigmas) == 2:
        return _single_step(model, x, sigmas, **common)
    last, steps = _last_above_zero(sigmas), len(sigmas) - 1
    return k_diffusion.sample_dpm_fast(model, x, last, sigmas[0], steps, **common)


def dpm_adaptive(
    model: Any, x: Tensor, sigmas: Tensor, *, on_bound: Callable[[int], None], **common: Any
) -> Tensor:
    """ComfyUI's, ended after `most_iterations`, the last of which is one straight step to the end.

    Every iteration runs the network `order` times at most. `on_bound(iterations)` tells of an end
    that came too early. It makes no single step either.
    """
    if len(sigmas) == 2:
        return _single_step(model, x, sigmas, **common)
    last, most = _last_above_zero(sigmas), most_iterations(len(sigmas) - 1)
    callback: Callback | None = common.pop("callback", None)

    def count(state: dict[str, Any]) -> None:
        if callback is not None:
            callback(state)
        is_done = torch.log(state["sigma"] / last) < FINISHED
        if state["i"] + 1 >= most - 1 and not is_done:
            raise _Stopped(state["x"], state["sigma"])

    try:
        return k_diffusion.sample_dpm_adaptive(model, x, last, sigmas[0], callback=count, **common)
    except _Stopped as stopped:
        on_bound(most)
        return _straight(model, stopped, last, common["extra_args"])[0]


def _last_above_zero(sigmas: Tensor) -> Tensor:
    """The noise level that solvers end at which can't end at 0."""
    return sigmas[sigmas > 0][-1]


class _Stopped(Exception):
    """A solver is left with this state, of this noise level."""

    def __init__(self, x: Tensor, sigma: Tensor):
        super().__init__()
        self.x, self.sigma = x, sigma


def _straight(
    model: Any, start: _Stopped, sigma: Tensor, extra_args: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """Euler's step from a state to the noise level `sigma`, and the prediction it went by."""
    x, here = start.x, start.sigma
    denoised = model(x, here * x.new_ones([len(x)]), **extra_args)
    return denoised + (x - denoised) * (sigma / here), denoised


def _single_step(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    *,
    extra_args: Mapping[str, Any],
    callback: Callback | None = None,
    **_: Any,
) -> Tensor:
    """Euler's, which solvers of any order begin with."""
    made, denoised = _straight(model, _Stopped(x, sigmas[0]), sigmas[1], extra_args)
    if callback is not None:
        callback({"x": x, "i": 0, "sigma": sigmas[0], "sigma_hat": sigmas[0], "denoised": denoised})
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Two-stage exponential integrators of ComfyUI's: SEEDS-2 (https://arxiv.org/abs/2305.14267).

    Their time is λ, half of the logarithm of the signal-to-noise ratio. For a step of h, with
    a = h(1 + eta), φ1(z) = (e^z - 1) / z and φ2(z) = (φ1(z) - 1) / z, the prediction at its start
    and the one after the share r of it weigh

        phi_1:  a φ1(-a) (1 - 1/2r)           and  a φ1(-a) / 2r
        phi_2:  a φ1(-a) - a φ2(-a) / r       and  a φ2(-a) / r

    The second is the exponential Runge-Kutta method of Hochbruck and Ostermann ("Exponential
    integrators", Acta Numerica 2010). ComfyUI 0.33 has both as sample_seeds_2 of
    comfy/k_diffusion/sampling.py, 0.3.75 the first.
    """

    solver_type: str
    r: float = 0.5
    eta: float = 1.0
    s_noise: float = 1.0

    def solve(self, model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
        """From the first noise level to the last."""
        run = _Run(model, common["extra_args"], common.get("noise_sampler"))
        sigmas = k_diffusion.offset_first_sigma_for_snr(sigmas, run.sampling)
        callback: Callback | None = common.get("callback")
        for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            denoised = run.predict(x, sigma)
            if callback is not None:
                state = {"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised}
                callback(state)
            if sigma_next == 0:
                return denoised
            x = self._step(run, x, denoised, sigma, sigma_next)
        return x

    def _step(
        self, run: _Run, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor
    ) -> Tensor:
        start, end = run.time(sigma), run.time(sigma_next)
        h, between = end - start, torch.lerp(start, end, self.r)
        middle = run.level(between)
        early, late = self._noise(run, h, sigma, middle, sigma_next)
        halfway = (
            middle / sigma * torch.exp(-self.r * h * self.eta) * x
            - middle * between.exp() * torch.expm1(-self.r * h * (1 + self.eta)) * denoised
            + middle * early
        )
        later = run.predict(halfway, middle)
        weight, weight_later = self._weights(-h * (1 + self.eta))
        return (
            sigma_next / sigma * torch.exp(-h * self.eta) * x
            - sigma_next * end.exp() * (weight * denoised + weight_later * later)
            + sigma_next * late
        )

    def _noise(
        self, run: _Run, h: Tensor, sigma: Tensor, middle: Tensor, sigma_next: Tensor
    ) -> tuple[Tensor | float, Tensor | float]:
        """What to add in the middle and at the end, for a noise level of 1: two draws in all."""
        if run.draw is None or self.eta <= 0 or self.s_noise <= 0:
            return 0.0, 0.0
        early = _renewed(self.r * h * self.eta) * run.draw(sigma, middle)
        rest = (1 - self.r) * h * self.eta
        late = torch.exp(-rest) * early + _renewed(rest) * run.draw(middle, sigma_next)
        return self.s_noise * early, self.s_noise * late

    def _weights(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of both predictions, for z = -a of the class's docstring; both are below 0."""
        whole = torch.expm1(z)
        is_phi_1 = self.solver_type == "phi_1"
        later = whole / (2 * self.r) if is_phi_1 else (whole - z) / z / self.r
        return whole - later, later


def _renewed(span: Tensor) -> Tensor:
    """How much of a noise of 1 is new after the time `span`: its standard deviation."""
    return (-torch.expm1(-2 * span)).sqrt()


@dataclass(frozen=True, slots=True)
class _Run:
    """A model at work on one batch."""

    model: Any
    extra_args: dict[str, Any]
    draw: Draw | None

    @property
    def sampling(self) -> Any:
        return self.model.inner_model.model_patcher.get_model_object("model_sampling")

    def predict(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The denoised picture."""
        return self.model(x, sigma * x.new_ones([len(x)]), **self.extra_args)

    def time(self, sigma: Tensor) -> Tensor:
        """λ of a noise level."""
        return k_diffusion.sigma_to_half_log_snr(sigma, self.sampling)

    def level(self, time: Tensor) -> Tensor:
        return k_diffusion.half_log_snr_to_sigma(time, self.sampling)


OPTIONS = ("eta", "s_noise", "solver_type")


def _exponential(common: dict[str, Any], **usual: Any) -> Exponential:
    """With those of its options that are given, which are taken out."""
    return Exponential(**usual | {name: common.pop(name) for name in OPTIONS if name in common})


@torch.no_grad()
def seeds_2(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """With the solver type too, which 0.3.75's lacks."""
    solver = _exponential(common, solver_type="phi_1")
    return solver.solve(model, x, sigmas, **common)


@torch.no_grad()
def exp_heun_2_x0(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """Heun's method in the same time: its second run is at the end of the step; without noise."""
    solver = _exponential(common, solver_type="phi_2", r=1.0, eta=0.0)
    return solver.solve(model, x, sigmas, **common)


@torch.no_grad()
def exp_heun_2_x0_sde(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """The same with noise."""
    solver = _exponential(common, solver_type="phi_2", r=1.0)
    return solver.solve(model, x, sigmas, **common)


def sa_solver(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """ComfyUI's, also for some of a schedule's steps.

    That of 0.3.75 gives the state before its last step where the last noise level is above 0. So it
    is begun one step more, and ended by its first run of the network, which sees the state wanted.
    """
    if sigmas[-1] == 0:
        return k_diffusion.sample_sa_solver(model, x, sigmas, **common)
    one_more = torch.cat([sigmas, sigmas[-1:] / 2])
    try:
        k_diffusion.sample_sa_solver(_Until(model, sigmas[-1]), x, one_more, **common)
    except _Stopped as stopped:
        return stopped.x
    raise AssertionError("the last noise level was not reached")


def sa_solver_pece(model: Any, x: Tensor, sigmas: Tensor, **common: Any) -> Tensor:
    """The same with a second run of the network in each step."""
    return sa_solver(model, x, sigmas, use_pece=True, **common)


class _Until:
    """A model that is not to be run at the noise level `last`."""

    def __init__(self, model: Any, last: Tensor):
        self.inner_model = model.inner_model
        self._model, self._last = model, last

    def __call__(self, x: Tensor, sigma: Tensor, **extra_args: Any) -> Tensor:
        if (sigma <= self._last).all():
            self._stop(x, sigma)
        return self._model(x, sigma, **extra_args)

    def _stop(self, x: Tensor, sigma: Tensor) -> NoReturn:
        raise _Stopped(x, sigma[0])


SamplerFunction = Callable[..., Tensor]
FUNCTIONS: Mapping[str, SamplerFunction] = {
    each.__name__: each
    for each in (
        euler_ancestral,
        dpm_2_ancestral,
        dpmpp_2s_ancestral,
        lcm,
        dpm_fast,
        dpm_adaptive,
        seeds_2,
        exp_heun_2_x0,
        exp_heun_2_x0_sde,
        sa_solver,
        sa_solver_pece,
        uni_pc,
        uni_pc_bh2,
    )
}

"""Every sampler with every option, on a tiny model: seeds, costs, ends, ComfyUI's own results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor

from hordelib import Engine, GenerationParams
from hordelib.comfyui.versions import step_seed
from hordelib.errors import InvalidParams
from hordelib.job.samplers import (
    ADAPTIVE,
    SAMPLERS,
    STEP_NOISE,
    Choice,
    Sampler,
    SamplerOptions,
    StepNoise,
)
from tests.support.tiny_denoiser import TinyDenoiser
from worker.prediction.amounts import calls

SHAPE = (4, 8, 8)
SEEDS = (5, 6, 7, (1 << 64) - 1)  # three of one job, and one of another
LEVELS = (14.6, 6.0, 2.5, 1.0, 0.3, 0.0)
FLOW_LEVELS = (1.0, 0.9, 0.7, 0.4, 0.1, 0.0)
Given = dict[str, Any]

# Of each option, a value that is neither its default nor at its limits.
VALUES: Given = {
    "eta": 0.6, "s_noise": 0.9, "s_churn": 3.0, "s_tmin": 2.0, "s_tmax": 2.0, "order": 2,
}  # fmt: skip
WITHOUT_EFFECT = {("res_multistep", "s_noise"), ("res_multistep_cfg_pp", "s_noise")}


def options_of(row: Sampler, name: str, value: Any) -> Given:
    """As the sampler's function takes them; two of them do something beside another one alone."""
    with_it: Given = {"s_churn": 3.0} if name in ("s_tmin", "s_tmax") else {}
    if row == ADAPTIVE and name == "s_noise":
        with_it["eta"] = 0.6
    if row.step_noise is StepNoise.churn and name == "s_noise":
        with_it["s_churn"] = 3.0
    return row.keywords(SamplerOptions(**{**with_it, name: value}))


def value_of(row: Sampler, name: str) -> Any:
    option = row.options[name]
    if isinstance(option, Choice):
        return next(word for word in option.words if word != option.default)
    return VALUES[name]


def cases() -> Iterator[tuple[str, str, Given]]:
    for row in SAMPLERS.values():
        yield row.name, "", {}
        for name in row.options:
            yield row.name, name, options_of(row, name, value_of(row, name))


CASES = list(cases())


@pytest.fixture(autouse=True)
def comfyui(engine: Engine) -> None:
    engine.start()


def sample(
    sampler: str,
    seeds: Sequence[int] = (5,),
    options: Given | None = None,
    *,
    model: TinyDenoiser | None = None,
    levels: Sequence[float] = LEVELS,
    bounds: list[int] | None = None,
) -> Tensor:
    """What our sampler of that name makes of these seeds: (B, C, H, W)."""
    from hordelib.comfyui.nodes.noise import first_noise, seeded_sampler

    row, latent = SAMPLERS[sampler], torch.zeros(len(seeds), *SHAPE)
    told = [] if bounds is None else bounds
    solver = seeded_sampler(row.comfy_name, seeds, options, on_bound=told.append)
    return _run(solver, model or TinyDenoiser(), first_noise(latent, seeds), levels, seeds[0])


def _run(
    solver: Any, model: TinyDenoiser, noise: Tensor, levels: Sequence[float], seed: int
) -> Tensor:
    extra_args: Given = {"seed": seed, "model_options": {}}
    sigmas, latent = torch.tensor(levels), torch.zeros_like(noise)
    return solver.sample(model, sigmas, extra_args, None, noise, latent, None, True)


def spread(first: float, last: float, count: int) -> list[float]:
    """Noise levels, evenly in their logarithms."""
    return [first * (last / first) ** (i / (count - 1)) for i in range(count)]


# ---- seeds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "option", "given"), CASES)
def test_an_image_is_that_of_its_seed_in_any_batch(sampler: str, option: str, given: Given):
    """Of one job or of several; and every option does something."""
    if not SAMPLERS[sampler].batches:
        together = torch.cat([sample(sampler, [seed], given) for seed in SEEDS])
    else:
        together = sample(sampler, SEEDS, given)
    for i, seed in enumerate(SEEDS):
        # Nothing is drawn from the program's own random numbers.
        torch.set_rng_state(torch.Generator().manual_seed(i).get_state())
        alone = sample(sampler, [seed], given)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)
        assert i == 0 or not torch.allclose(together[0], alone[0], atol=0.01)
    if option and (sampler, option) not in WITHOUT_EFFECT:
        companion = {
            name: value for name, value in given.items() if name != _keyword(sampler, option)
        }
        assert not torch.allclose(together[:1], sample(sampler, SEEDS[:1], companion), atol=1e-3)


def _keyword(sampler: str, option: str) -> str:
    return SAMPLERS[sampler].options[option].keyword or option


# ---- ComfyUI's own ---------------------------------------------------------------------------


def comfyuis() -> list[str]:
    """Those that ComfyUI 0.3.75 has."""
    return [name for name in SAMPLERS if not name.startswith("exp_heun")]


@pytest.mark.parametrize("sampler", comfyuis())
@pytest.mark.parametrize("is_flow", [False, True], ids=["noise", "flow"])
def test_an_image_alone_is_comfyuis(sampler: str, is_flow: bool):
    import comfy.samplers

    row, levels = SAMPLERS[sampler], FLOW_LEVELS if is_flow else LEVELS
    theirs = comfy.samplers.sampler_object(row.comfy_name)
    noise = _noise(5)
    options = dict(theirs.extra_options)
    if row.step_noise is StepNoise.gaussian and sampler != "k_dpm_fast":
        options["noise_sampler"] = _drawn(5)
    solver = comfy.samplers.KSAMPLER(theirs.sampler_function, options)
    expected = _run(solver, TinyDenoiser(is_flow=is_flow), noise, levels, 5)
    bounds: list[int] = []
    model = TinyDenoiser(is_flow=is_flow)
    made = sample(sampler, [5], model=model, levels=levels, bounds=bounds)
    if not bounds:
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def _noise(seed: int) -> Tensor:
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))


def _drawn(seed: int) -> Any:
    generator = torch.Generator().manual_seed(step_seed(seed, "cpu"))

    def draw(_sigma: Tensor, _next: Tensor) -> Tensor:
        return torch.randn(1, *SHAPE, generator=generator)

    return draw


@pytest.mark.parametrize(
    "sampler", [row.name for row in SAMPLERS.values() if row.step_noise is StepNoise.churn]
)
def test_churned_noise_of_an_image_alone_is_comfyuis(sampler: str):
    """ComfyUI draws it from torch's global generator, right after the first noise."""
    import comfy.sample
    import comfy.samplers

    noise = comfy.sample.prepare_noise(torch.zeros(1, *SHAPE), 5)
    theirs = comfy.samplers.sampler_object(SAMPLERS[sampler].comfy_name)
    options = {"s_churn": 3.0, "s_noise": 1.1}
    solver = comfy.samplers.KSAMPLER(theirs.sampler_function, options)
    expected = _run(solver, TinyDenoiser(), noise, LEVELS, 5)
    if sampler == "heunpp2":  # which draws in each step, of which the last ones do nothing
        assert not torch.equal(expected, sample(sampler, [5]))
    torch.testing.assert_close(sample(sampler, [5], options), expected, rtol=0, atol=0)


def test_options_are_those_of_comfyuis_functions():
    """By their names there; what 0.3.75 lacks is ours."""
    import inspect

    import comfy.k_diffusion.sampling as k_diffusion

    ours = {"lcm": {"s_noise"}, "seeds_2": {"solver_type"}}
    for row in SAMPLERS.values():
        function = getattr(k_diffusion, f"sample_{row.comfy_name}", None)
        if function is None:  # uni_pc and ddim, and what is not there yet
            continue
        known = set(inspect.signature(function).parameters) | ours.get(row.comfy_name, set())
        names = {option.keyword or name for name, option in row.options.items()}
        assert names <= known, row.name
        draws = STEP_NOISE[row.comfy_name] in (StepNoise.gaussian, StepNoise.brownian)
        assert draws == ("noise_sampler" in known), row.name
        assert (row.step_noise is StepNoise.churn) == ("s_churn" in known), row.name


# ---- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_is_the_prediction_itself(sampler: str):
    model = TinyDenoiser()
    expected = model(_noise(5) * (14.6**2 + 1) ** 0.5, torch.tensor([14.6]))
    made = sample(sampler, [5], levels=(14.6, 0.0))
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_some_of_the_steps_end_at_the_last_noise_level(sampler: str):
    """As the QR workflow needs it: what is left is noise of that level, about."""
    made = sample(sampler, [5], levels=(14.6, 6.0, 2.5, 1.0))
    expected = sample("k_euler", [5], levels=(14.6, 6.0, 2.5, 1.0))
    most = 4 if SAMPLERS[sampler].reads_unguided else 1.6  # CFG++ goes on beyond the prediction
    assert 0.6 < made.std() / expected.std() < most


@pytest.mark.parametrize(
    ("sampler", "option"), [(row.name, name) for row in SAMPLERS.values() for name in row.options]
)
def test_options_at_their_limits_give_numbers(sampler: str, option: str):
    row = SAMPLERS[sampler]
    limits = row.options[option]
    ends = limits.words if isinstance(limits, Choice) else (limits.low, min(limits.high, 1e9))
    for value in ends:
        given = options_of(row, option, int(value) if option == "order" else value)
        assert sample(sampler, [5], given).isfinite().all()
        if option == "eta":
            given = {**given, "eta": min(float(value), row.most_flow_eta)}
        assert flowing(sampler, given).isfinite().all()


def flowing(sampler: str, given: Given) -> Tensor:
    return sample(sampler, [5], given, model=TinyDenoiser(is_flow=True), levels=FLOW_LEVELS)


@pytest.mark.parametrize("sampler", ["k_euler_a", "k_dpm_2_a", "k_dpmpp_2s_a"])
def test_little_noise_is_none_with_flow_models(sampler: str):
    """ComfyUI's share of noise is a root, and that of a number below 0 by rounding."""
    none = flowing(sampler, {"eta": 0.0})
    for eta in (1e-12, 1e-8, 1e-5):
        assert torch.equal(flowing(sampler, {"eta": eta}), none)
    assert (flowing(sampler, {"eta": 1.1e-3}) - none).abs().max() < 0.2


# ---- costs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [name for name, row in SAMPLERS.items() if row != ADAPTIVE])
def test_runs_of_the_network_are_as_predicted(sampler: str):
    model, steps = TinyDenoiser(), len(LEVELS) - 1
    sample(sampler, [5], model=model)
    params = GenerationParams(prompt="", sampler=SAMPLERS[sampler])
    expected = calls(params, steps)
    assert model.calls == expected - (sampler == "heunpp2")  # one less in its last step but one


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("steps", [2, 5, 12])
def test_dpm_adaptive_keeps_its_bound_and_tells_of_it(steps: int, order: int):
    levels = [*spread(14.5, 0.03, steps), 0.0]
    model, bounds = TinyDenoiser(), list[int]()
    made = sample(
        "k_dpm_adaptive", [5], {"order": order}, model=model, levels=levels, bounds=bounds
    )
    most = ceil(1.25 * steps)
    assert model.calls <= most * order
    assert bounds in ([], [most])
    reference = sample("k_heun", [5], levels=[*spread(14.5, 0.03, 60), 0.0])
    assert (made - reference).abs().mean() < 1.0, "a picture, not noise"
    if steps == 2:
        assert bounds, "two steps are too few for any schedule of its own"


def test_dpm_adaptive_that_ends_in_time_tells_nothing():
    levels = [*spread(14.5, 0.03, 60), 0.0]
    bounds: list[int] = []
    sample("k_dpm_adaptive", [5], levels=levels, bounds=bounds)
    assert bounds == []


# ---- our own ---------------------------------------------------------------------------------


@pytest.mark.parametrize("solver_type", ["phi_1", "phi_2"])
@pytest.mark.parametrize("sampler", ["seeds_2", "exp_heun_2_x0"])
def test_exponential_solvers_are_of_the_second_order(sampler: str, solver_type: str):
    """Half the step, about a quarter of the error."""
    given: Given = {"solver_type": solver_type} | ({"eta": 0.0} if sampler == "seeds_2" else {})

    coarse, fine = ((made(sampler, steps, given) - exact()).abs().mean() for steps in (10, 20))
    assert coarse / fine > 3


def made(name: str, steps: int, options: Given | None = None) -> Tensor:
    return sample(name, [5], options, levels=spread(3.0, 0.5, steps + 1))


@cache
def exact() -> Tensor:
    return made("k_heun", 400)


def test_params_refuse_what_a_sampler_has_not():
    params = GenerationParams(prompt="")
    for options, told in (
        (SamplerOptions(s_churn=1.0), "sampler_s_churn"),
        (SamplerOptions(eta=float("nan")), "sampler_eta=nan: expected a number from 0 to 100"),
        (SamplerOptions(eta=True), "sampler_eta"),
        (SamplerOptions(order=2), "sampler_order"),
    ):
        with pytest.raises(InvalidParams, match=told):
            replace(params, sampler_options=options)

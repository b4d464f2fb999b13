"""Rewards, ttl and batches against what a real server answered; and what bridges may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import pytest

from worker.sandbox import ReferenceModel
from worker.sandbox.rules import pricing
from worker.sandbox.rules.capabilities import BridgeAgent, shortcomings
from worker.sandbox.wire import GenerateBody, Params, Sampler

SD1 = ReferenceModel("stable diffusion 1")
TOLERANCE = 0.055


def params(**changes: Any) -> Params:
    values = {"steps": 30, "cfg_scale": 7.0} | changes
    return Params.model_validate(values, strict=False)


def square(side: int, **changes: Any) -> dict[str, Any]:
    return {"width": side, "height": side} | changes


# What the server paid for an image, by its parameters and the baseline of its model.
REWARDS: list[tuple[dict[str, Any], str, float]] = [
    ({"steps": 20}, "stable diffusion 1", 5.76),
    ({}, "stable diffusion 1", 7.61),
    ({"steps": 50}, "stable diffusion 1", 10.98),
    ({"steps": 100}, "stable diffusion 1", 20.14),
    (square(768), "stable diffusion 1", 11.68),
    (square(1024), "stable diffusion 1", 20.65),
    (square(2048), "stable diffusion 1", 114.33),
    ({"sampler_name": "k_heun"}, "stable diffusion 1", 13.0),
    ({"sampler_name": "k_dpmpp_2m"}, "stable diffusion 1", 7.54),
    ({"sampler_name": "k_dpm_adaptive"}, "stable diffusion 1", 13.46),
    (square(768, hires_fix=True), "stable diffusion 1", 16.2),
    ({"control_type": "canny"}, "stable diffusion 1", 13.69),
    ({"denoising_strength": 0.5}, "stable diffusion 1", 6.6),
    ({"post_processing": ["GFPGAN"]}, "stable diffusion 1", 9.19),
    ({"post_processing": ["RealESRGAN_x4plus"]}, "stable diffusion 1", 10.39),
    ({"loras": [{"name": "ink"}]}, "stable diffusion 1", 10.61),
    ({"tis": [{"name": "7808"}]}, "stable diffusion 1", 8.61),
    (square(1024), "stable_diffusion_xl", 41.3),
    (square(1024, steps=4), "flux_1", 88.4),
]


@pytest.mark.parametrize(("changes", "baseline", "paid"), REWARDS)
def test_rewards_are_close_to_those_the_server_paid(
    changes: Mapping[str, Any], baseline: str, paid: float
):
    reward = pricing.reward(params(**changes), ReferenceModel(baseline))
    assert reward == pytest.approx(paid, rel=TOLERANCE)


# The server's own prices of an image of 512 x 512 and 50 steps.
SAMPLER_PRICES = {
    "k_euler": 11.0, "k_euler_a": 10.98, "k_heun": 19.02, "k_dpm_2": 16.82, "k_dpm_2_a": 17.55,
    "k_lms": 11.19, "k_dpm_fast": 11.48, "k_dpm_adaptive": 16.2, "k_dpmpp_2s_a": 16.41,
    "k_dpmpp_2m": 10.64, "dpmsolver": 10.64, "k_dpmpp_sde": 19.53, "lcm": 11.0, "DDIM": 15.02,
    "uni_pc": 15.04, "uni_pc_bh2": 14.5, "dpmpp_2m_sde": 10.64, "dpmpp_3m_sde": 10.64,
    "ddpm": 11.0, "deis": 10.64, "ipndm": 10.64, "res_multistep": 10.64,
    "gradient_estimation": 11.0, "heunpp2": 19.02, "er_sde": 11.0, "sa_solver": 10.64,
    "euler_cfg_pp": 11.0, "euler_ancestral_cfg_pp": 10.98, "dpmpp_2s_ancestral_cfg_pp": 16.41,
    "dpmpp_2m_cfg_pp": 10.64, "dpmpp_2m_sde_heun": 10.64, "ipndm_v": 10.64,
    "res_multistep_cfg_pp": 10.64, "res_multistep_ancestral": 10.64,
    "res_multistep_ancestral_cfg_pp": 10.64, "gradient_estimation_cfg_pp": 11.0,
    "seeds_2": 19.53, "seeds_3": 19.02, "sa_solver_pece": 19.53, "exp_heun_2_x0": 19.02,
    "exp_heun_2_x0_sde": 19.53,
}  # fmt: skip


def test_samplers_cost_what_the_server_says():
    assert SAMPLER_PRICES.keys() == set(get_args(Sampler))
    priced = {name: pricing.kudos(params(sampler_name=name, steps=50)) for name in SAMPLER_PRICES}
    assert priced == pytest.approx(SAMPLER_PRICES, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "baseline", "seconds"),
    [
        ({"steps": 20}, "stable diffusion 1", 150),
        ({"steps": 100}, "stable diffusion 1", 230),
        (square(768), "stable diffusion 1", 165),
        (square(1024), "stable diffusion 1", 270),
        (square(2048), "stable diffusion 1", 990),
        ({"control_type": "canny"}, "stable diffusion 1", 180),
        (square(1024, sampler_name="k_heun"), "stable diffusion 1", 510),
        (square(1024, sampler_name="seeds_3"), "stable diffusion 1", 750),
        (square(1024, sampler_name="k_dpm_adaptive"), "stable diffusion 1", 350),
        (square(1024, steps=4), "flux_1", 186),
        (square(1024, steps=4), "flux_schnell", 186),
        (square(1024, steps=8), "krea2_turbo", 282),
        (square(1024, steps=8), "anima", 282),
        (square(768, sampler_name="seeds_3"), "stable diffusion 1", 435),
        (square(576, sampler_name="k_dpm_adaptive", steps=500), "stable diffusion 1", 150),
        (square(832, steps=41), "stable diffusion 1", 247),  # 246.49: rounded up
    ],
)
def test_the_time_limit_is_the_servers(changes: Mapping[str, Any], baseline: str, seconds: int):
    limit = pricing.time_to_live(params(**changes), baseline, extra_slow=False, minimum_seconds=150)
    assert limit == seconds


@pytest.mark.parametrize(
    ("changes", "max_side", "size"),
    [
        (square(512), 512, 3),
        (square(512), 1024, 10),
        (square(1024), 1024, 3),
        (square(512), 2048, 10),
        (square(512, post_processing=["RealESRGAN_x4plus"]), 2048, 10),
        (square(512, workflow="qr_code"), 2048, 1),
    ],
)
def test_a_batch_is_as_large_as_the_server_makes_it(
    changes: Mapping[str, Any], max_side: int, size: int
):
    request = GenerateBody(prompt="x", params=params(n=10, **changes))
    pixels = max_side * max_side
    handed = pricing.batch_size(request, "x", waiting=10, amount=10, max_pixels=pixels)
    assert handed == size


@pytest.mark.parametrize(
    ("baseline", "size"),
    [("stable_diffusion_1", 10), ("flux_dev", 2), ("qwen_image", 1), ("krea2_turbo", 1)],
)
def test_slow_families_come_in_small_batches(baseline: str, size: int):
    request = GenerateBody(prompt="x", params=params(n=10))
    handed = pricing.batch_size(request, baseline, waiting=10, amount=10, max_pixels=1024 * 1024)
    assert handed == size


@pytest.mark.parametrize(
    ("changes", "cost"), [({"steps": 20}, 7), (square(1024), 21), ({"loras": [{"name": "x"}]}, 11)]
)
def test_a_client_pays_an_image_and_a_tax(changes: Mapping[str, Any], cost: int):
    assert pricing.image_cost(GenerateBody(prompt="x", params=params(**changes)), SD1) == cost


def test_source_pictures_and_impatience_cost_more():
    request = GenerateBody(prompt="x", params=params(), source_image="x", slow_workers=False)
    plain = pricing.reward(request.params, SD1)
    assert pricing.image_cost(request, SD1) == round(plain * 1.3 * 1.2 + 1)


@pytest.mark.parametrize(
    ("agent", "changes", "lacking"),
    [
        ("AI Horde Worker reGen:13:x", {"loras": [{"name": "1", "is_version": True}]}, 0),
        ("AI Horde Worker reGen:2:x", {"loras": [{"name": "1", "is_version": True}]}, 1),
        ("AI Horde Worker reGen:13.0.0:x", {"sampler_name": "lcm"}, 0),
        ("AI Horde Worker reGen:1:x", {}, 2),
        ("AI Horde Worker reGen:12:x", {"post_processing": ["RestoreFormer"]}, 1),
        ("AI Horde Worker:24:x", {"tis": [{"name": "1"}], "loras": [{"name": "1"}]}, 0),
        ("AI Horde Worker:23:x", {"tis": [{"name": "1"}]}, 1),
        ("AI Horde Worker:24:x", {"tiling": True}, 1),
        ("AI Horde Worker:24:x", {"sampler_name": "DDIM", "karras": True}, 2),
        ("AI Horde Worker:24:x", {"sampler_name": "DDIM", "karras": False}, 0),
        ("AI Horde Worker:24:x", {"sampler_name": "lcm"}, 2),
        ("SD-WebUI Stable Horde Worker Bridge:4:x", {"tiling": True, "clip_skip": 2}, 0),
        ("My Worker:1:x", {"hires_fix": True}, 1),
        ("My Worker:1:x", {"sampler_name": "k_dpmpp_2m"}, 0),
        ("My Worker:1:x", {"sampler_name": "lcm"}, 2),
        ("AI Horde Worker:21:x", {"loras": [{"name": "1"}]}, 2),
        ("AI Horde Worker reGen:13:x", {"scheduler": "beta"}, 1),
        ("AI Horde Worker reGen:13:x", {"scheduler": "karras"}, 0),
        ("AI Horde Worker reGen:13:x", {"scheduler": "gits"}, 1),
        ("AI Horde Worker reGen:13:x", {"sampler_eta": 0.5}, 1),
        ("AI Horde Worker reGen:13:x", {"sampler_name": "uni_pc"}, 2),
        ("AI Horde Worker reGen:13:x", {"sampler_name": "seeds_2"}, 3),
        ("AI Horde Worker reGen:13:x", {"control_type": "tile"}, 1),
        ("AI Horde Worker reGen:13:x", {"control_type": "hough"}, 0),
        ("AI Horde Worker reGen:16:x", {"control_type": "mlsd"}, 1),
        ("AI Horde Worker reGen:17.0.0:x", {"sampler_name": "seeds_2", "karras": False}, 0),
        ("AI Horde Worker reGen:17:x", {"control_type": "tile", "control_strength": 1.0}, 1),
        ("AI Horde Worker reGen:18.0.0:x", {"control_type": "tile", "control_strength": 1.0}, 0),
        ("AI Horde Worker reGen:17:x", {"flow_shift": 3.0, "sampler_order": 2}, 0),
    ],
)
def test_a_bridge_can_do_what_its_name_and_version_say(
    agent: str, changes: Mapping[str, Any], lacking: int
):
    request = GenerateBody(prompt="x", params=params(**changes))
    assert shortcomings(BridgeAgent.parse(agent), request) == lacking


@pytest.mark.parametrize(
    ("agent", "changes", "baseline", "can"),
    [
        ("AI Horde Worker reGen:1:x", {"hires_fix": True}, "stable_diffusion_xl", True),
        ("AI Horde Worker reGen:5:x", {"hires_fix": True}, "stable_cascade", False),
        ("AI Horde Worker reGen:6:x", {"hires_fix": True}, "stable_cascade", True),
        ("AI Horde Worker reGen:18:x", {"hires_fix": True}, "flux_1", False),
        ("AI Horde Worker reGen:18:x", {"control_type": "canny"}, "stable_diffusion_xl", False),
        ("AI Horde Worker reGen:18:x", {"control_type": "tile"}, "stable_diffusion_2_768", True),
        ("AI Horde Worker reGen:18:x", {"control_type": "mlsd"}, "stable_diffusion_2_768", False),
        ("AI Horde Worker reGen:8:x", {"transparent": True}, "stable_diffusion_1", True),
        ("AI Horde Worker reGen:8:x", {"transparent": True}, "qwen_image", False),
        ("AI Horde Worker reGen:17:x", {"flow_shift": 1.0}, "qwen_image", True),
        ("AI Horde Worker reGen:17:x", {"flow_shift": 1.0}, "z_image_turbo", False),
        ("AI Horde Worker reGen:18:x", {"scheduler": "align_your_steps"}, "flux_1", False),
        ("AI Horde Worker:24:x", {"hires_fix": True}, "stable_diffusion_xl", False),
        ("My Worker:1:x", {"hires_fix": True}, "stable_diffusion_1", False),
        ("My Worker:1:x", {}, "a baseline of tomorrow", True),
    ],
)
def test_a_feature_needs_the_right_baseline(
    agent: str, changes: Mapping[str, Any], baseline: str, can: bool
):
    assert BridgeAgent.parse(agent).renders(params(**changes), baseline) is can


@pytest.mark.parametrize(
    ("text", "version"), [("a:13:x", 13), ("a:13.0.0:x", 13), ("a:b:x", 0), ("whatever", 0)]
)
def test_a_version_is_its_first_number(text: str, version: int):
    assert BridgeAgent.parse(text).version == version

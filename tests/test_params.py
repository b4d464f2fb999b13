from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hordelib.errors import InvalidParams, NotServed
from hordelib.params import SEEDS, UNSERVED, GenerationParams, split_prompt
from hordelib.samplers import SAMPLERS, Scheduler

# As the server sends it: every boolean is there, optional keys are not.
PAYLOAD: dict[str, Any] = {
    "prompt": "a red cat ### dog",
    "ddim_steps": 20,
    "n_iter": 2,
    "seed": "1133623963",
    "image_is_control": False,
    "return_control_map": False,
    "sampler_name": "k_euler_a",
    "cfg_scale": 7.0,
    "height": 512,
    "width": 768,
    "karras": True,
    "tiling": False,
    "hires_fix": False,
    "transparent": False,
}


def test_a_payload_of_the_server_is_read():
    assert GenerationParams.from_payload(PAYLOAD) == GenerationParams(
        prompt="a red cat",
        negative_prompt="dog",
        width=768,
        height=512,
        seed=1133623963,
        images=2,
        steps=20,
        cfg=7.0,
        sampler=SAMPLERS["k_euler_a"],
        scheduler=Scheduler.karras,
    )


def test_absent_and_null_keys_get_defaults():
    params = GenerationParams.from_payload({"prompt": "a fox", "clip_skip": None})
    assert (params.width, params.height, params.steps, params.images) == (512, 512, 30, 1)
    assert params.clip_skip == 1


def test_two_jobs_without_a_seed_get_different_seeds():
    seeds = {GenerationParams.from_payload({"prompt": "a fox"}).seed for _ in range(20)}
    assert len(seeds) == 20


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"width": 500}, "width"),
        ({"width": "512"}, "width"),
        ({"height": 0}, "height"),
        ({"height": 4096}, "height"),
        ({"ddim_steps": 0}, "steps"),
        ({"ddim_steps": 20.5}, "ddim_steps"),
        ({"ddim_steps": True}, "ddim_steps"),
        ({"cfg_scale": float("nan")}, "cfg"),
        ({"cfg_scale": "7"}, "cfg_scale"),
        ({"cfg_scale": -1}, "cfg"),
        ({"n_iter": 21}, "images"),
        ({"seed": "the little seed"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": "9" * 5000}, "seed"),
        ({"ddim_steps": 10**400}, "steps"),
        ({"cfg_scale": 10**400}, "cfg"),
        ({"sampler_name": "k_best"}, "sampler_name"),
        ({"sampler_name": 3}, "sampler_name"),
        ({"karras": "yes"}, "karras"),
        ({"clip_skip": 13}, "clip_skip"),
        ({"prompt": 7}, "prompt"),
    ],
)
def test_bad_values_name_the_field_and_the_remedy(change: dict[str, Any], field: str):
    with pytest.raises(InvalidParams, match="expected") as caught:
        GenerationParams.from_payload(PAYLOAD | change)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", UNSERVED)
def test_what_is_not_served_is_refused_by_name_not_ignored(key: str):
    with pytest.raises(NotServed, match="not serve") as caught:
        GenerationParams.from_payload(PAYLOAD | {key: "something"})
    assert caught.value.field == key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a fox", ("a fox", "")),
        ("a fox ### blurry", ("a fox", "blurry")),
        ("a fox###", ("a fox", "")),
        ("### blurry", ("", "blurry")),
        ("a ### b ### c", ("a", "b ### c")),
    ],
)
def test_the_negative_prompt_follows_the_first_mark(text: str, expected: tuple[str, str]):
    assert split_prompt(text) == expected


@pytest.mark.parametrize("name", [*SAMPLERS, "DDIM", "K_EULER"])
def test_every_sampler_of_the_horde_is_known_in_any_case(name: str):
    params = GenerationParams.from_payload(PAYLOAD | {"sampler_name": name})
    assert params.sampler.name == name.lower()


@given(st.integers(min_value=0, max_value=1 << 80), st.integers(min_value=0, max_value=19))
def test_image_seeds_follow_each_other_and_wrap_around(seed: int, index: int):
    params = GenerationParams.from_payload(PAYLOAD | {"seed": str(seed)})
    assert params.image_seed(index) == (seed + index) % SEEDS


def test_params_and_their_errors_travel_between_processes():
    params = GenerationParams.from_payload(PAYLOAD)
    assert pickle.loads(pickle.dumps(params)) == params
    error = pickle.loads(pickle.dumps(InvalidParams("width", 500, "a multiple of 64")))
    assert (type(error), error.field) == (InvalidParams, "width")
    assert str(error) == "width=500: expected a multiple of 64"
    assert pickle.loads(pickle.dumps(NotServed("tis"))).field == "tis"

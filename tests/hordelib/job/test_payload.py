from __future__ import annotations

import pickle
from contextlib import suppress
from fnmatch import fnmatch
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hordelib.errors import InvalidParams, NotServed
from hordelib.job.control_types import ControlType
from hordelib.job.params import SEEDS, GenerationParams
from hordelib.job.payload import (
    ControlRequest,
    JobRequest,
    LoraRequest,
    TiRequest,
    read_payload,
    split_prompt,
)
from hordelib.job.samplers import SAMPLERS, Choice, SamplerOptions, Scheduler
from tests.support.bounds import frugal

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


KEYS = (
    *PAYLOAD,
    *("sampler_eta", "sampler_s_tmax", "sampler_order", "sampler_solver_type", "flow_shift"),
    *("clip_skip", "scheduler", "denoising_strength", "hires_fix_denoising_strength"),
    *("loras", "tis", "name", "model", "clip", "inject_trigger", "is_version", "inject_ti"),
    *("strength", "control_type", "control_strength", "post_processing", "facefixer_strength"),
    *("workflow", "extra_texts", "reference", "text", "use_nsfw_censor"),
)


def read(payload: dict[str, Any]) -> GenerationParams:
    return read_payload(payload).params


def test_a_payload_of_the_server_is_read():
    assert read_payload(PAYLOAD, images=2).params == GenerationParams(
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
    params = read({"prompt": "a fox", "clip_skip": None})
    assert (params.width, params.height, params.steps, params.images) == (512, 512, 30, 1)
    assert params.clip_skip == 1


def test_two_jobs_without_a_seed_get_different_seeds():
    seeds = {read({"prompt": "a fox"}).seed for _ in range(20)}
    assert len(seeds) == 20


BAD: list[tuple[dict[str, Any], str]] = [
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
    ({"seed": "the little seed"}, "seed"),
    ({"seed": -1}, "seed"),
    ({"seed": "9" * 5000}, "seed"),
    ({"ddim_steps": 10**400}, "steps"),
    ({"cfg_scale": 10**400}, "cfg"),
    ({"denoising_strength": 0}, "denoise"),
    ({"facefixer_strength": 2}, "facefixer_strength"),
    ({"control_type": "magic"}, "control_type"),
    ({"control_type": "canny" * 10_000}, "control_type"),
    ({"control_type": ["canny"]}, "control_type"),
    ({"control_type": "canny", "control_strength": float("nan")}, "control_strength"),
    ({"control_type": "canny", "control_strength": 0}, "control_strength"),
    ({"workflow": "qr_code", "control_strength": 3.1}, "control_strength"),
    ({"loras": "7"}, "loras"),
    ({"loras": [7]}, "loras"),
    ({"loras": [{"name": "a"}] * 6}, "loras"),
    ({"loras": [{}]}, "loras[0].name"),
    ({"loras": [{"name": "a", "model": 11}]}, "loras[0].model"),
    ({"loras": [{"name": "a"}, {"name": "b", "clip": "x"}]}, "loras[1].clip"),
    ({"tis": [{"name": "x" * 300}]}, "tis[0].name"),
    ({"tis": [{"name": "x", "inject_ti": "both"}]}, "tis[0].inject_ti"),
    ({"post_processing": "GFPGAN"}, "post_processing"),
    ({"extra_texts": [{"text": "x"}]}, "extra_texts[0].reference"),
    ({"use_nsfw_censor": 1}, "use_nsfw_censor"),
    ({"sampler_name": 3}, "sampler_name"),
    ({"karras": "yes"}, "karras"),
    ({"clip_skip": 13}, "clip_skip"),
    ({"prompt": 7}, "prompt"),
]


@pytest.mark.parametrize(("change", "field"), BAD)
def test_bad_values_name_the_field_and_the_remedy(change: dict[str, Any], field: str):
    with pytest.raises(InvalidParams, match="expected") as caught:
        read_payload(PAYLOAD | change)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_a_workflow_that_nobody_knows_is_refused_by_name():
    with pytest.raises(NotServed, match="'movie'"):
        read_payload(PAYLOAD | {"workflow": "movie"})


def test_there_are_as_many_images_as_the_caller_says_whatever_the_payload_does():
    assert read_payload(PAYLOAD | {"n_iter": 7}, images=3).params.images == 3


def test_all_that_a_job_can_name_is_read():
    request = read_payload(
        PAYLOAD
        | {
            "denoising_strength": 0.4,
            "loras": [{"name": 4711, "model": 0.5, "is_version": True}],
            "tis": [{"name": "7808", "inject_ti": "negprompt", "strength": 0.8}],
            "control_type": "canny",
            "control_strength": 0.7,
            "return_control_map": True,
            "post_processing": ["RealESRGAN_x4plus", "GFPGAN"],
            "workflow": "qr_code",
            "extra_texts": [{"text": "https://a.b", "reference": "qr_code"}],
            "use_nsfw_censor": True,
        }
    )
    assert request.params.denoise == 0.4
    assert request == JobRequest(
        params=request.params,
        loras=(LoraRequest("4711", model=0.5, is_version=True),),
        tis=(TiRequest("7808", "negprompt", 0.8),),
        control=ControlRequest(ControlType.canny, 0.7, return_control_map=True),
        control_strength=0.7,
        post_processing=("RealESRGAN_x4plus", "GFPGAN"),
        workflow="qr_code",
        extra_texts=(("qr_code", "https://a.b"),),
        use_nsfw_censor=True,
    )


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("k_dpmpp_2m_sde_gpu", "dpmpp_2m_sde"),
        ("euler_ancestral", "k_euler_a"),
        ("k_best", "k_euler"),
        ("unipc", "uni_pc"),
    ],
)
def test_an_unknown_sampler_becomes_the_nearest_one_and_that_is_disclosed(asked: str, used: str):
    request = read_payload(PAYLOAD | {"sampler_name": asked})
    assert request.params.sampler.name == used
    assert f"{used} was used" in (request.notes[0].ref or "")


def test_a_scheduler_counts_more_than_karras_and_an_unknown_one_is_disclosed():
    assert read(PAYLOAD | {"scheduler": "sgm_uniform"}).scheduler is Scheduler.sgm_uniform
    unknown = read_payload(PAYLOAD | {"scheduler": "linear"})
    assert unknown.params.scheduler is Scheduler.karras
    assert "'linear'" in (unknown.notes[0].ref or "")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_option_of_a_sampler_is_read(sampler: str):
    row = SAMPLERS[sampler]
    for name, option in row.options.items():
        value = option.words[-1] if isinstance(option, Choice) else option.low
        if value == option.default:
            value = option.words[0] if isinstance(option, Choice) else option.low + 1
        value = int(value) if name == "order" else value
        request = read_payload(PAYLOAD | {"sampler_name": sampler, f"sampler_{name}": value})
        assert dict(request.params.sampler_options.given()) == {name: value}
        assert request.notes == ()


def test_options_that_are_the_default_anyway_say_nothing():
    asked = {"sampler_name": "k_euler_a", "sampler_eta": 1, "sampler_s_noise": 1.0}
    assert read(PAYLOAD | asked) == read(PAYLOAD | {"sampler_name": "k_euler_a"})


@pytest.mark.parametrize(
    ("sampler", "option", "value", "told"),
    [
        ("ddpm", "eta", 0.5, "sampler_eta left out: ddpm has no such option"),
        ("k_dpm_fast", "order", 2, "sampler_order left out: k_dpm_fast has no such option"),
        (
            "k_euler_a",
            "eta",
            "much",
            "sampler_eta='much' left out: expected a number from 0 to 100",
        ),
        ("k_euler_a", "eta", True, "sampler_eta=True left out: *"),
        ("k_euler_a", "eta", float("nan"), "sampler_eta=nan left out: *"),
        ("k_euler_a", "eta", -1, "sampler_eta=-1 left out: *"),
        ("k_euler_a", "eta", 10**400, "sampler_eta=* left out: *"),
        ("k_euler", "s_tmax", -1, "sampler_s_tmax=-1 left out: expected a number of at least 0"),
        ("deis", "order", 0, "sampler_order=0 left out: expected a whole number from 2 to 4"),
        ("deis", "order", 2.5, "sampler_order=2.5 left out: *"),
        ("deis", "order", [2], "sampler_order=[[]2[]] left out: *"),
        (
            "seeds_2",
            "solver_type",
            "heun",
            "sampler_solver_type='heun' left out: expected phi_1 or phi_2",
        ),
        ("seeds_2", "solver_type", {}, "sampler_solver_type={} left out: *"),
        ("euler_ancestral_cfg_pp", "eta", 1.5, "sampler_eta=1.5 left out: *from 0 to 1"),
    ],
)
def test_an_option_that_a_sampler_can_not_have_is_left_out_and_disclosed(
    sampler: str, option: str, value: object, told: str
):
    request = read_payload(PAYLOAD | {"sampler_name": sampler, f"sampler_{option}": value})
    assert request.params.sampler_options == SamplerOptions()
    (note,) = request.notes
    assert fnmatch(note.ref or "", told)


def test_an_endless_number_is_one_that_solvers_can_compute_with():
    asked = {"sampler_name": "k_euler", "sampler_s_tmax": 10**400}
    assert read(PAYLOAD | asked).sampler_options.s_tmax == 1e9


@pytest.mark.parametrize("value", ["3", float("nan"), -1, 101, True])
def test_a_flow_shift_out_of_range_is_left_out_and_disclosed(value: object):
    request = read_payload(PAYLOAD | {"flow_shift": value})
    assert request.params.flow_shift is None
    (note,) = request.notes
    assert fnmatch(note.ref or "", "flow_shift=* left out: expected a number from 0 to 100")
    assert read(PAYLOAD | {"flow_shift": 3}).flow_shift == 3


def test_control_characters_and_half_letters_never_reach_the_model():
    params = read({"prompt": "a\x00 red\x1b[31m\tcat\x9f \ud800"})
    assert params.prompt == "a  red [31m cat  ?"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1. a cat\n2. a dog", "1. a cat\n2. a dog"),
        ("1. a cat\r\n2. a dog\r3.", "1. a cat\n2. a dog\n3."),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("\u4e00\u3000\u4e8c", "\u4e00\u3000\u4e8c"),
    ],
    ids=["list", "line breaks of other systems", "family", "Persian", "wide space"],
)
def test_line_breaks_and_joiners_stay(written: str, kept: str):
    text = {"reference": "qr_code", "text": written}
    request = read_payload({"prompt": f"{written}###{written}", "extra_texts": [text]})
    assert (request.params.prompt, request.params.negative_prompt) == (kept, kept)
    assert request.extra_texts == (("qr_code", kept),)


def test_prompts_are_cut_before_anything_reads_them_and_that_is_disclosed():
    request = read_payload({"prompt": "{" * 1_000_000 + "###" + "}" * 1_000_000})
    params = request.params
    assert (params.prompt, params.negative_prompt) == ("{" * 12_000, "}" * 12_000)
    assert [note.ref for note in request.notes] == [
        "a prompt of 1000000 characters was cut after 12000"
    ] * 2


def test_null_means_absent_at_every_depth():
    nothing = dict.fromkeys(("model", "clip", "inject_trigger", "is_version"))
    neither = dict.fromkeys(("inject_ti", "strength"))
    request = read_payload(
        {key: None for key in PAYLOAD}
        | {
            "loras": [None, {"name": "a"} | nothing],
            "tis": [{"name": "b"} | neither, None],
            "post_processing": [None],
            "extra_texts": [{"reference": "qr_code", "text": None}, None],
            "control_type": "canny",
            "control_strength": None,
            "image_is_control": None,
            "workflow": None,
            "use_nsfw_censor": None,
        }
    )
    assert request.loras == (LoraRequest("a"),)
    assert request.tis == (TiRequest("b"),)
    assert request.control == ControlRequest(ControlType.canny)
    assert (request.post_processing, request.extra_texts) == ((), (("qr_code", ""),))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING))
@frugal
def test_any_payload_is_read_or_refused_in_one_short_line(payload: dict[str, Any]):
    try:
        told = [str(note.ref) for note in read_payload(payload).notes]
    except (InvalidParams, NotServed) as error:
        told = [str(error)]
    for line in told:
        assert "\n" not in line
        assert len(line) < 500


@pytest.mark.parametrize("key", ["sampler_name", "scheduler", "workflow", "control_type"])
def test_a_word_of_a_million_letters_costs_nothing(key: str):
    with suppress(InvalidParams, NotServed):
        request = read_payload({"prompt": "a", key: "k" * 1_000_000})
        assert all(len(note.ref or "") < 200 for note in request.notes)


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
    params = read(PAYLOAD | {"sampler_name": name})
    assert params.sampler.name == name.lower()


@given(st.integers(min_value=0, max_value=1 << 80), st.integers(min_value=0, max_value=19))
def test_image_seeds_follow_each_other_and_wrap_around(seed: int, index: int):
    params = read(PAYLOAD | {"seed": str(seed)})
    assert params.image_seed(index) == (seed + index) % SEEDS


def test_params_and_their_errors_travel_between_processes():
    params = read(PAYLOAD)
    assert pickle.loads(pickle.dumps(params)) == params
    error = pickle.loads(pickle.dumps(InvalidParams("width", 500, "a multiple of 64")))
    assert (type(error), error.field) == (InvalidParams, "width")
    assert str(error) == "width=500: expected a multiple of 64"
    assert pickle.loads(pickle.dumps(NotServed("tis"))).field == "tis"

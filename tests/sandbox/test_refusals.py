"""Each thing that the sandbox refuses, with its status and rc."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

import pytest

from tests.support.sandbox_client import (
    MODEL,
    MODELS,
    NEWBIE_KEY,
    UNKNOWN_ID,
    WORKER_KEY,
    Api,
    MovableClock,
    assert_invalid,
    assert_refused,
    picture,
)
from worker.sandbox import ANONYMOUS_KEY, SERVER_LIMITS, Endpoint, Sandbox

SOURCE = b64encode(picture()).decode()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"params": {"width": 500}}, "params.width"),
        ({"params": {"width": 4096}}, "params.width"),
        ({"params": {"n": 21}}, "params.n"),
        ({"params": {"steps": 501}}, "params.steps"),
        ({"params": {"sampler_name": "foo"}}, "params.sampler_name"),
        ({"params": {"clip_skip": None}}, "params.clip_skip"),
        ({"params": {"scheduler": "foo"}}, "params.scheduler"),
        ({"params": {"sampler_eta": -1}}, "params.sampler_eta"),
        ({"params": {"sampler_order": 0}}, "params.sampler_order"),
        ({"params": {"sampler_solver_type": "euler"}}, "params.sampler_solver_type"),
        ({"params": {"control_strength": 0}}, "params.control_strength"),
        ({"params": {"post_processing": ["GFPGAN", "GFPGAN"]}}, "params.post_processing"),
        ({"params": {"loras": [{"name": ""}]}}, "params.loras.0.name"),
        ({"prompt": ""}, "prompt"),
        ({"nsfw": "yes"}, "nsfw"),
        ({"source_image": None}, "source_image"),
    ],
)
def test_a_request_outside_the_schema_names_the_field(
    client: Api, change: Mapping[str, object], field: str
):
    body = {"prompt": "x"} | dict(change)
    assert_invalid(client.call("POST", "generate/async", body), field)


@pytest.mark.parametrize(
    ("params", "change", "status", "rc"),
    [
        ({"loras": [{"name": str(i)} for i in range(6)]}, {}, 400, "TooManyLoras"),
        ({"cfg_scale": 7.123}, {}, 400, "BadCFGDecimals"),
        (
            {"post_processing": ["RealESRGAN_x4plus", "NMKD_Siax"]}, {}, 400, "TooManyUpscalers",
        ),
        ({"control_type": "canny"}, {}, 400, "ControlNetSourceMissing"),
        (
            {"control_type": "canny"}, {"source_image": SOURCE, "models": ["Demo XL"]},
            400, "ControlNetMismatch",
        ),
        ({}, {"source_mask": SOURCE}, 400, "SourceMaskUnnecessary"),
        ({"sampler_name": "ddpm", "sampler_eta": 1}, {}, 400, "SamplerKnobInapplicable"),
        ({"sampler_name": "k_euler", "sampler_order": 2}, {}, 400, "SamplerKnobInapplicable"),
        (
            {"sampler_name": "k_dpmpp_2m", "sampler_solver_type": "heun"},
            {}, 400, "SamplerKnobInapplicable",
        ),
        (
            {"sampler_name": "euler_ancestral_cfg_pp", "sampler_eta": 1.5},
            {}, 400, "SamplerKnobOutOfRange",
        ),
        ({"sampler_name": "deis", "sampler_order": 5}, {}, 400, "SamplerKnobOutOfRange"),
        (
            {"sampler_name": "seeds_2", "sampler_solver_type": "heun"},
            {}, 400, "SamplerSolverTypeUnsupported",
        ),
        (
            {"sampler_name": "dpmpp_3m_sde", "karras": False}, {}, 400, "SamplerSchedulerMismatch",
        ),
        ({"scheduler": "gits"}, {"models": ["Demo Flux"]}, 400, "SchedulerBaselineMismatch"),
        ({"flow_shift": 3}, {}, 400, "FlowShiftInapplicable"),
        ({"flow_shift": 101}, {"models": ["Demo Flux"]}, 400, "FlowShiftOutOfRange"),
        (
            {}, {"source_image": SOURCE, "source_processing": "inpainting"},
            400, "InpaintingMissingMask",
        ),
        ({}, {"source_image": "!!!"}, 400, "ImageValidationFailed"),
        ({}, {"source_image": "http://127.0.0.1:1/x.png"}, 400, "ImageValidationFailed"),
        ({"n": 2}, {"disable_batching": True}, 400, "RequiresTrust"),
        ({}, {"workers": [UNKNOWN_ID]}, 404, "WorkerNotFound"),
    ],
)  # fmt: skip
def test_a_request_against_the_rules_is_refused(
    client: Api, params: Mapping[str, object], change: Mapping[str, object], status: int, rc: str
):
    assert_refused(client.ask(params, **change), status, rc)


def test_requests_are_refused_for_want_of_key_kudos_or_room(
    sandbox: Sandbox, client: Api, newbie: Api, stranger: Api
):
    assert_refused(stranger.ask(), 401, "InvalidAPIKey")
    assert_refused(newbie.ask({"width": 1536, "height": 1536, "steps": 50}), 403, "KudosUpfront")
    assert newbie.ask({"n": 20}).status_code == 202
    assert_refused(newbie.ask({"n": 20}), 429, "TooManyPrompts")
    sandbox.horde.set_mode("maintenance_mode", True)
    assert_refused(client.ask(), 400, "MaintenanceMode")


def test_a_poor_client_may_have_the_request_downgraded(newbie: Api, worker: Api):
    newbie.ask_id({"width": 1536, "height": 1536, "steps": 50}, allow_downgrade=True)
    payload = worker.pop_job()["payload"]
    assert (payload["width"], payload["height"], payload["ddim_steps"]) == (1024, 1024, 40)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "4"}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": 50}, "amount"),
        ({"threads": 200}, "threads"),
        ({"nsfw": None}, "nsfw"),
        ({"models": ["ab"]}, "models.0"),
        ({"bridge_agent": "x" * 1001}, "bridge_agent"),
    ],
)
def test_a_pop_outside_the_schema_names_the_field(
    worker: Api, change: Mapping[str, object], field: str
):
    assert_invalid(worker.pop(**change), field)


def test_a_pop_without_name_key_or_json_is_refused(sandbox: Sandbox, worker: Api):
    assert_invalid(worker.call("POST", "generate/pop", {"models": [MODEL]}), "name")
    with Api(sandbox.url, None) as nobody:
        assert_invalid(nobody.pop(), "apikey")
    url = f"{sandbox.url}/api/v2/generate/pop"
    reply = worker.http.post(url, data="not json", timeout=120)
    assert (reply.status_code, set(reply.json())) == (400, {"message"})


@pytest.mark.parametrize(
    ("key", "change", "status", "rc"),
    [
        ("no-such-key", {}, 401, "InvalidAPIKey"),
        (ANONYMOUS_KEY, {}, 403, "AnonForbiddenWorker"),
        (NEWBIE_KEY, {}, 403, "WrongCredentials"),
        (WORKER_KEY, {"name": "other", "models": []}, 400, "BadRequest"),
        (WORKER_KEY, {"name": "other", "models": ["No Such Model"]}, 400, "BadRequest"),
        (WORKER_KEY, {"name": "my colab worker"}, 400, "BadRequest"),
        (WORKER_KEY, {"priority_usernames": ["bob"]}, 400, "InvalidPriorityUsername"),
    ],
)
def test_a_pop_against_the_rules_is_refused(
    sandbox: Sandbox, worker: Api, key: str, change: Mapping[str, object], status: int, rc: str
):
    worker.pop()
    with Api(sandbox.url, key) as other:
        assert_refused(other.pop(**change), status, rc)


def test_a_worker_name_beyond_100_characters_trips_the_server(worker: Api):
    assert worker.pop(name="x" * 101).status_code == 500


def test_the_number_of_workers_of_an_owner_is_limited(worker: Api, newbie: Api):
    for number in range(4):
        assert newbie.pop(name=f"newbie {number}").status_code == 200
    assert_refused(newbie.pop(name="newbie 4"), 403, "TooManyWorkers")
    for number in range(21):
        assert worker.pop(name=f"owner {number}").status_code == 200
    assert_refused(worker.pop(name="owner 21"), 403, "TooManyWorkersTrusted")


def test_operators_can_shut_workers_out(sandbox: Sandbox, clock: MovableClock, worker: Api):
    worker.pop()
    sandbox.horde.set_mode("invite_only_mode", True)
    assert worker.pop().status_code == 200
    assert_refused(worker.pop(name="latecomer"), 403, "WorkerInviteOnly")
    sandbox.horde.set_flagged("owner#1", True)
    assert_refused(worker.pop(), 403, "WorkerFlaggedMaintenance")
    sandbox.horde.set_flagged("owner#1", False)
    sandbox.horde.time_out(60)
    assert_refused(worker.pop(), 403, "TimeoutIP")
    clock.move(61)
    assert worker.pop().status_code == 200


def test_in_maintenance_only_the_owners_requests_come(sandbox: Sandbox, client: Api, worker: Api):
    worker.pop()
    id = worker.call("GET", "workers/name/tester").json()["id"]
    body = {"maintenance": True, "maintenance_msg": "fixing the fan", "info": "my worker"}
    assert_refused(client.call("PUT", f"workers/{id}", body), 403, "NotOwner")
    reply = worker.call("PUT", f"workers/{id}", body)
    assert reply.json() == {"maintenance": True, "info": "my worker"}

    client.ask_id()
    refused = worker.pop()
    assert_refused(refused, 403, "WorkerMaintenance")
    assert refused.json()["message"] == "fixing the fan"
    worker.ask_id()
    worker.pop_job()
    sandbox.set_maintenance("tester", False)
    worker.pop_job()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": "12"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"state": "banana"}, "state"),
        ({"censored": None}, "censored"),
        ({"gen_metadata": [{"type": "weird", "value": "nsfw"}]}, "gen_metadata.0.type"),
        ({"gen_metadata": [{"type": "lora"}]}, "gen_metadata.0.value"),
        (
            {"gen_metadata": [{"type": "lora", "value": "nsfw", "ref": "x" * 256}]},
            "gen_metadata.0.ref",
        ),
    ],
)
def test_a_submit_outside_the_schema_leaves_the_job_open(
    client: Api, worker: Api, change: Mapping[str, object], field: str
):
    client.ask_id()
    job = worker.pop_job()
    assert_invalid(worker.submit(job["id"], **change), field)
    assert worker.submit(job["id"]).status_code == 200


def test_submits_are_refused_as_the_server_refuses_them(
    sandbox: Sandbox, client: Api, worker: Api, stranger: Api
):
    client.ask_id()
    id = worker.pop_job()["id"]
    assert_invalid(worker.call("POST", "generate/submit", {"id": id, "generation": "R2"}), "seed")
    assert_invalid(worker.call("POST", "generate/submit", {"id": id, "seed": 1}), "generation")
    with Api(sandbox.url, None) as nobody:
        assert_invalid(nobody.submit(id), "apikey")
    assert stranger.submit(id).status_code == 500
    assert_refused(client.submit(id), 403, "WrongCredentials")
    assert_refused(worker.submit(UNKNOWN_ID), 404, "InvalidJobID")
    assert_refused(worker.submit("not-a-uuid"), 404, "InvalidJobID")
    assert worker.submit(id, seed=2**40).status_code == 200
    assert_refused(worker.submit(id), 400, "DuplicateGen")
    assert_refused(worker.submit(id, state="faulted"), 400, "DuplicateGen")


def test_too_much_metadata_is_refused_after_delivery(client: Api, worker: Api):
    id = client.ask_id()
    job = worker.pop_job()
    metadata = [{"type": "lora", "value": "download_failed"}] * 51
    assert_refused(worker.submit(job["id"], gen_metadata=metadata), 400, "BadRequest")
    assert client.check(id)["finished"] == 1
    assert_refused(worker.submit(job["id"]), 400, "DuplicateGen")


def test_unknown_requests_and_workers_are_not_found(client: Api):
    for path in ("generate/check", "generate/status"):
        assert_refused(client.call("GET", f"{path}/{UNKNOWN_ID}"), 404, "RequestNotFound")
    assert_refused(client.call("DELETE", f"generate/status/{UNKNOWN_ID}"), 404, "RequestNotFound")
    assert_refused(client.call("GET", f"workers/{UNKNOWN_ID}"), 404, "WorkerNotFound")
    assert_refused(client.call("GET", "workers/name/nobody"), 404, "WorkerNotFound")


def test_object_urls_are_good_for_one_method_one_object_and_half_an_hour(
    client: Api, worker: Api, clock: MovableClock
):
    client.ask_id()
    url = worker.pop_job()["r2_upload"]
    http = worker.http
    assert http.get(url, timeout=120).status_code == 403
    assert http.put(url.replace("Signature=", "Signature=0"), timeout=120).status_code == 403
    assert http.put(url.replace("/transient/", "/transient/0"), timeout=120).status_code == 403
    assert http.put(url.replace("Expires=1800", "Expires=9999"), timeout=120).status_code == 403
    assert http.put(url.partition("?")[0], timeout=120).status_code == 403
    clock.move(1799)
    assert http.put(url, data=b"x", timeout=120).status_code == 200
    clock.move(2)
    assert http.put(url, data=b"x", timeout=120).status_code == 403


def test_find_user_refuses_an_unknown_key(stranger: Api):
    assert_refused(stranger.call("GET", "find_user"), 401, "InvalidAPIKey")


def test_status_is_limited_to_ten_calls_a_minute(client: Api, clock: MovableClock):
    id = client.ask_id()
    path = f"generate/status/{id}"
    assert [client.call("GET", path).status_code for _ in range(10)] == [200] * 10
    refused = client.call("GET", path)
    assert (refused.status_code, refused.json()) == (429, {"message": "10 per 1 minute"})
    assert refused.headers["Retry-After"] == "60"
    clock.move(60)
    assert client.call("GET", path).status_code == 200


def test_pops_are_limited_when_asked_for(clock: MovableClock):
    limits = {Endpoint.POP: SERVER_LIMITS[Endpoint.POP]}
    with (
        Sandbox(MODELS, clock=clock, limits=limits) as sandbox,
        Api(sandbox.url, WORKER_KEY) as api,
    ):
        codes = [api.pop().status_code for _ in range(61)]
    assert codes == [200] * 60 + [429]

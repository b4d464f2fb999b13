"""What the sandbox gives over HTTP, from a client's request to its picture."""

from __future__ import annotations

import hashlib
import io
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from tests.support.sandbox_client import (
    MODEL,
    UNKNOWN_ID,
    WORKER_KEY,
    Api,
    MovableClock,
    assert_invalid,
    assert_refused,
    picture,
)
from worker.sandbox import Sandbox, State

SOURCE = b64encode(picture()).decode()
CUTOUT = b64encode(picture(mode="RGBA")).decode()


def test_a_picture_goes_from_worker_to_client(sandbox: Sandbox, client: Api, worker: Api):
    id = client.ask_id()
    assert client.check(id)["waiting"] == 1
    job = worker.pop_job()
    assert client.check(id)["processing"] == 1
    assert worker.http.put(job["r2_upload"], data=picture("WEBP"), timeout=120).status_code == 200
    reply = worker.submit(job["id"], seed=7)
    assert reply.json() == {"reward": pytest.approx(5.76, rel=0.04)}

    status = client.status(id)
    assert status["done"]
    assert not status["faulted"]
    (generation,) = status["generations"]
    assert (generation["seed"], generation["worker_name"]) == ("7", "tester")
    image = client.http.get(generation["img"], timeout=120)
    assert image.content == picture("WEBP") == sandbox.image(job["id"])


def test_the_books_know_what_happened(sandbox: Sandbox, client: Api, worker: Api):
    id = client.ask_id()
    job = worker.pop_job()
    worker.http.put(job["r2_upload"], data=b"bytes", timeout=120)
    worker.submit(job["id"], gen_metadata=[{"type": "information", "value": "see_ref"}])
    worker.submit(job["id"])

    books = sandbox.books()
    entry = books.generation(job["id"])
    assert books.of_request(id) == books.in_state(State.ok) == (entry,)
    assert entry.upload_sha256 == hashlib.sha256(b"bytes").hexdigest()
    assert entry.gen_metadata == ({"type": "information", "value": "see_ref"},)
    assert books.request(id).consumed_kudos == 10
    assert books.worker_kudos == {"tester": 6}
    assert books.tally.calls["submit"] == 2
    assert books.tally.statuses["submit", 400] == 1
    assert books.tally.rcs == {"DuplicateGen": 1}


def test_a_job_has_the_payload_the_server_sends(client: Api, worker: Api):
    client.ask_id({"loras": [{"name": "ink"}], "tis": [{"name": "7808"}], "seed": "42"})
    job = worker.pop_job()
    assert job["payload"] == {
        "prompt": "a red circle ### blurry", "ddim_steps": 20, "n_iter": 1, "seed": "42",
        "image_is_control": False, "return_control_map": False, "sampler_name": "k_euler_a",
        "cfg_scale": 7.0, "height": 512, "width": 512, "karras": True, "tiling": False,
        "hires_fix": False, "transparent": False,
        "loras": [{"name": "ink", "model": 1.0, "clip": 1.0, "is_version": False}],
        "tis": [{"name": "7808", "strength": 1.0}],
    }  # fmt: skip
    assert (job["model"], job["ttl"], job["skipped"]) == (MODEL, 150, {})
    assert job["source_image"] is None
    assert job["r2_uploads"] == [job["r2_upload"]]


def test_options_of_sampling_are_in_the_payload_as_asked_for(client: Api, worker: Api):
    options = {"sampler_name": "k_dpmpp_sde", "scheduler": "gits", "sampler_eta": 0.5}
    client.ask_id(options)
    payload = worker.pop_job(bridge_agent="AI Horde Worker reGen:18.0.0:x")["payload"]
    assert {name: payload[name] for name in options} == options
    assert not payload.keys() & {"sampler_order", "sampler_solver_type", "flow_shift"}


@pytest.mark.parametrize(("scheduler", "karras"), [("karras", True), ("normal", False)])
def test_a_schedule_that_karras_stands_for_sets_it(
    client: Api, worker: Api, scheduler: str, karras: bool
):
    client.ask_id({"scheduler": scheduler, "karras": not karras})
    assert worker.pop_job()["payload"]["karras"] is karras


def test_the_censor_flag_is_sent_only_for_censored_safe_requests(client: Api, worker: Api):
    for nsfw, censor in ((False, True), (False, False), (True, True)):
        client.ask(nsfw=nsfw, censor_nsfw=censor)
    payloads = [worker.pop_job()["payload"] for _ in range(3)]
    assert [payload.get("use_nsfw_censor") for payload in payloads] == [True, None, None]


def test_an_empty_pop_looks_like_a_job_without_ids(worker: Api):
    reply = worker.pop()
    assert reply.status_code == 200
    body = reply.json()
    assert (body["id"], body["ids"], body["payload"]["ddim_steps"]) == (None, [], 30)
    assert set(body["skipped"]) >= {"bridge_version", "models", "nsfw", "performance"}
    assert not any(body["skipped"].values())
    assert reply.headers["X-Ratelimit-Limit"] == "60"
    assert reply.headers["Retry-After"] == "1"


def test_a_batch_is_one_pop_and_an_upload_per_image(client: Api, worker: Api):
    id = client.ask_id({"n": 4, "seed": "777", "seed_variation": 3})
    job = worker.pop_job(amount=4)
    assert (len(set(job["ids"])), job["payload"]["n_iter"]) == (4, 4)
    assert job["payload"]["seed"] == "789"
    for job_id, url in zip(job["ids"], job["r2_uploads"], strict=True):
        assert job_id in url
        assert worker.submit(job_id).status_code == 200
    assert client.check(id)["kudos"] == 31


def test_a_dry_run_costs_nothing(sandbox: Sandbox, client: Api):
    reply = client.ask(dry_run=True)
    assert (reply.status_code, reply.json()) == (200, {"kudos": 8.0})
    assert sandbox.books().requests == ()


def test_a_request_that_no_worker_fits_comes_with_a_warning(client: Api, worker: Api):
    assert client.ask().json()["warnings"][0]["code"] == "NoAvailableWorker"
    worker.pop_job()
    assert "warnings" not in client.ask().json()


def test_a_faulted_job_is_queued_again_and_cannot_be_delivered(client: Api, worker: Api):
    id = client.ask_id()
    job = worker.pop_job()
    assert worker.submit(job["id"], state="faulted").json() == {"reward": 0.0}
    check = client.check(id)
    assert (check["waiting"], check["restarted"], check["done"]) == (1, 1, False)
    assert_refused(worker.submit(job["id"]), 400, "AbortedGen")
    assert worker.submit(job["id"], state="faulted").json() == {"reward": 0.0}
    again = worker.pop_job()
    worker.submit(again["id"], state="faulted")
    check = client.check(id)
    assert (check["waiting"], check["restarted"], check["done"]) == (0, 2, True)
    assert not check["faulted"]


def test_only_metadata_makes_an_image_censored(client: Api, worker: Api):
    plain, marked = client.ask_id(), client.ask_id()
    worker.submit(worker.pop_job()["id"], state="censored", censored=True)
    worker.submit(
        worker.pop_job()["id"],
        state="censored",
        gen_metadata=[{"type": "censorship", "value": "nsfw"}],
    )
    assert client.status(plain)["generations"][0]["censored"] is False
    generation = client.status(marked)["generations"][0]
    assert (generation["censored"], generation["state"]) == (True, "ok")
    assert (client.check(plain)["kudos"], client.check(marked)["kudos"]) == (10, 4)


def test_an_image_inside_the_submit_is_stored_as_webp(sandbox: Sandbox, client: Api, worker: Api):
    id = client.ask_id()
    job = worker.pop_job()
    worker.submit(job["id"], generation=b64encode(picture()).decode())
    stored = sandbox.image(job["id"])
    assert stored is not None
    assert Image.open(io.BytesIO(stored)).format == "WEBP"
    assert client.status(id)["generations"][0]["img"].startswith(sandbox.url)


def test_text_that_is_no_image_is_paid_and_handed_on(client: Api, worker: Api):
    id = client.ask_id()
    assert worker.submit(worker.pop_job()["id"], generation="!!no!!").status_code == 200
    assert client.status(id)["generations"][0]["img"] == "!!no!!"


def test_a_client_without_r2_gets_the_bytes(client: Api, worker: Api):
    id = client.ask_id(r2=False)
    job = worker.pop_job()
    worker.http.put(job["r2_upload"], data=b"bytes", timeout=120)
    worker.submit(job["id"])
    assert client.status(id)["generations"][0]["img"] == b64encode(b"bytes").decode()


def test_a_submit_without_an_upload_is_paid_and_has_no_image(client: Api, worker: Api):
    id = client.ask_id()
    assert worker.submit(worker.pop_job()["id"]).status_code == 200
    link = client.status(id)["generations"][0]["img"]
    assert client.http.get(link, timeout=120).status_code == 404


def test_a_cancelled_request_pays_for_what_workers_hold(client: Api, worker: Api):
    id = client.ask_id({"n": 2})
    job = worker.pop_job()
    assert client.call("DELETE", f"generate/status/{id}").json()["processing"] == 1
    assert worker.pop().json()["id"] is None
    assert worker.submit(job["id"]).status_code == 200
    assert client.check(id)["done"]


def test_source_pictures_are_links_to_webp(client: Api, worker: Api):
    client.ask_id(
        {"denoising_strength": 0.6},
        models=["Demo Inpainting"],
        source_image=SOURCE,
        source_mask=SOURCE,
        source_processing="inpainting",
        extra_source_images=[{"image": SOURCE, "strength": 0.5}],
    )
    job = worker.pop_job(models=[MODEL, "Demo Inpainting"])
    assert (job["model"], job["source_processing"]) == ("Demo Inpainting", "inpainting")
    (extra,) = job["extra_source_images"]
    assert extra["strength"] == 0.5
    for link in (job["source_image"], job["source_mask"], extra["image"]):
        reply = worker.http.get(link, timeout=120)
        assert Image.open(io.BytesIO(reply.content)).format == "WEBP"


def test_a_mask_may_be_the_alpha_channel(client: Api, worker: Api):
    client.ask_id(models=["Demo Inpainting"], source_image=CUTOUT, source_processing="inpainting")
    job = worker.pop_job(models=["Demo Inpainting"])
    assert job["source_mask"] is None
    reply = worker.http.get(job["source_image"], timeout=120)
    assert Image.open(io.BytesIO(reply.content)).mode == "RGBA"


def test_a_source_picture_may_be_a_url(sandbox: Sandbox, client: Api, worker: Api):
    name = f"{UNKNOWN_ID}.png"
    sandbox.horde.store.put("sources", name, picture(), "image/png")
    client.ask_id(source_image=sandbox.url + sandbox.horde.store.presign("GET", "sources", name))
    link = worker.pop_job()["source_image"]
    assert "_src?" in link
    reply = worker.http.get(link, timeout=120)
    assert Image.open(io.BytesIO(reply.content)).format == "WEBP"


def test_an_old_bridge_gets_source_pictures_in_the_pop(client: Api, worker: Api):
    client.ask_id({"karras": False}, source_image=SOURCE)
    job = worker.pop_job(bridge_agent="AI Horde Worker:12:x")
    assert job["source_image"].startswith("UklGR")


def test_status_pages_tell_of_workers_users_and_models(client: Api, worker: Api):
    worker.pop()
    client.ask_id()
    assert worker.call("GET", "status/heartbeat").json()["message"] == "OK"
    (model,) = worker.call("GET", "status/models").json()
    assert (model["name"], model["count"], model["jobs"]) == (MODEL, 1, 1.0)
    assert worker.call("GET", f"status/models/{MODEL}").json() == [model]
    assert worker.call("GET", "status/performance").json()["queued_requests"] == 1
    assert worker.call("GET", "status/modes").json()["maintenance_mode"] is False
    assert worker.call("GET", "status/news").json() == []
    user = worker.call("GET", "find_user").json()
    assert (user["username"], user["trusted"], user["worker_count"]) == ("owner#1", True, 1)
    (listed,) = worker.call("GET", "workers?type=image").json()
    assert (listed["name"], listed["online"]) == ("tester", True)
    assert "owner" not in listed  # who is no moderator sees it of public workers alone


def test_pages_of_users_and_workers_are_up_to_half_a_minute_old(
    client: Api, clock: MovableClock, worker: Api
):
    assert worker.call("GET", "find_user").json()["worker_ids"] == []
    worker.pop()
    id = worker.call("GET", "workers/name/tester").json()["id"]
    worker.call("PUT", f"workers/{id}", {"maintenance": True})
    assert worker.call("GET", "find_user").json()["worker_ids"] == []
    assert client.call("GET", f"workers/{id}").json()["maintenance_mode"] is False
    clock.move(30)
    assert worker.call("GET", "find_user").json()["worker_ids"] == [id]
    assert client.call("GET", f"workers/{id}").json()["maintenance_mode"] is True


def test_a_name_is_kept_as_html_and_has_no_address_with_a_slash(worker: Api):
    worker.pop(name=" Tom & <Jerry> ")
    found = worker.call("GET", "workers/name/Tom%20&amp;%20&lt;Jerry&gt;")
    assert found.json()["name"] == "Tom &amp; &lt;Jerry&gt;"
    assert worker.call("GET", "workers/name/Tom%20&%20<Jerry>").status_code == 404
    worker.pop(name="a/b")
    assert "rc" not in worker.call("GET", "workers/name/a%2Fb").json()


def test_an_owner_changes_the_record_of_a_worker(worker: Api, client: Api):
    worker.pop()
    id = worker.call("GET", "workers/name/tester").json()["id"]
    (team,) = worker.call("GET", "teams").json()
    changed = worker.call("PUT", f"workers/{id}", {"info": "a & b", "team": team["id"]})
    assert changed.json() == {"info": "a &amp; b", "team": team["name"]}
    assert worker.call("PUT", f"workers/{id}", {"team": ""}).json() == {"team": "None"}
    for body, status, rc in (
        ({}, 400, "NoWorkerModSelected"),
        ({"team": "nowhere"}, 404, "TeamNotFound"),
        ({"name": "tester"}, 400, "WorkerNameAlreadyExists"),
    ):
        assert_refused(worker.call("PUT", f"workers/{id}", body), status, rc)
    assert_invalid(worker.call("PUT", f"workers/{id}", {"info": "x" * 1001}), "info")
    assert_refused(client.call("PUT", f"workers/{id}", {"team": ""}), 403, "NotModerator")


def test_messages_come_with_each_pop(sandbox: Sandbox, worker: Api):
    sandbox.horde.send_message("please update", origin="mods")
    (message,) = worker.pop().json()["messages"]
    assert (message["message"], message["origin"]) == ("please update", "mods")


def test_workers_that_pop_at_once_never_share_a_job(sandbox: Sandbox, client: Api):
    for _ in range(5):
        client.ask_id({"n": 8})

    def drain(name: str) -> list[str]:
        with Api(sandbox.url, WORKER_KEY) as worker:
            return [worker.pop_job(name=name)["id"] for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        ids = [id for row in pool.map(drain, ("a", "b", "c", "d")) for id in row]
    assert len(set(ids)) == 40 == len(sandbox.books().in_state(State.processing))

"""Talking to a sandbox in tests: one client, one worker, and a clock that moves when told."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import requests
from PIL import Image

from worker.sandbox import ReferenceModel

CLIENT_KEY = "sandbox-client-key-000"
WORKER_KEY = "sandbox-worker-key-000"
NEWBIE_KEY = "sandbox-newbie-key-000"
AGENT = "AI Horde Worker reGen:18.0.0:https://example.org"
MODEL = "Dreamer Demo"
MODELS = {
    MODEL: ReferenceModel("stable diffusion 1"),
    "Demo XL": ReferenceModel("stable_diffusion_xl"),
    "Demo Flux": ReferenceModel("flux_1"),
    "Demo Inpainting": ReferenceModel("stable diffusion 1", inpainting=True),
}
UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
TIMEOUT_SECONDS = 10

Json = dict[str, Any]


class MovableClock:
    def __init__(self, now: float = 1_800_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class Api:
    """The sandbox's API with one key. Bodies are given as the changes to a usual one."""

    def __init__(self, url: str, key: str | None):
        self.url = url
        self.http = requests.Session()
        if key is not None:
            self.http.headers["apikey"] = key

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: object = None) -> requests.Response:
        url = f"{self.url}/api/v2/{path}"
        return self.http.request(method, url, json=body, timeout=TIMEOUT_SECONDS)

    def ask(
        self, params: Mapping[str, object] | None = None, **changes: object
    ) -> requests.Response:
        body: Json = {"prompt": "a red circle ### blurry", "models": [MODEL]} | changes
        body["params"] = {"steps": 20, "cfg_scale": 7.0} | dict(params or {})
        return self.call("POST", "generate/async", body)

    def ask_id(self, params: Mapping[str, object] | None = None, **changes: object) -> str:
        reply = self.ask(params, **changes)
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    def pop(self, **changes: object) -> requests.Response:
        return self.call("POST", "generate/pop", offer(**changes))

    def pop_job(self, **changes: object) -> Json:
        reply = self.pop(**changes)
        assert reply.status_code == 200, reply.text
        assert reply.json()["id"] is not None, reply.text
        return reply.json()

    def submit(self, id: str, **changes: object) -> requests.Response:
        body = {"id": id, "generation": "R2", "seed": 1, "state": "ok", "censored": False}
        return self.call("POST", "generate/submit", body | changes)

    def check(self, id: str) -> Json:
        return self.call("GET", f"generate/check/{id}").json()

    def status(self, id: str) -> Json:
        return self.call("GET", f"generate/status/{id}").json()


def offer(**changes: object) -> Json:
    """The body of a pop by a worker that can do everything."""
    body: Json = {
        "name": "tester",
        "models": [MODEL],
        "bridge_agent": AGENT,
        "max_pixels": 1024 * 1024,
        "allow_controlnet": True,
        "allow_lora": True,
    }
    return body | changes


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> bytes:
    target = io.BytesIO()
    colour = (255, 0, 0, 128) if mode == "RGBA" else "red"
    Image.new(mode, size, colour).save(target, kind)
    return target.getvalue()


def assert_refused(reply: requests.Response, status: int, rc: str) -> None:
    assert (reply.status_code, reply.json().get("rc")) == (status, rc), reply.text


def assert_invalid(reply: requests.Response, field: str) -> None:
    assert reply.status_code == 400, reply.text
    assert reply.json()["message"] == "Input payload validation failed"
    assert field in reply.json()["errors"]

"""The demo: a local horde, a client with a handful of wishes, and this worker between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from rich.console import Console

from hordelib.demo_model import ensure_checkpoint
from worker.assembly import find_models, make_bridge
from worker.board import Board
from worker.config import BridgeConfig
from worker.contact_sheet import Shot, write_contact_sheet
from worker.sandbox import ReferenceModel, Sandbox
from worker.serve import Interrupted, serve
from worker.terminal import board_view, jobs_table, set_up_logging

MODEL = "Dreamer Demo"
WORKER_KEY, CLIENT_KEY = "sandbox-worker-key-000", "sandbox-client-key-000"
TIMEOUT_SECONDS = 30
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Wish:
    """One request that the demo's client posts."""

    prompt: str
    seed: int
    sampler: str = "k_euler"
    pixels: int = 64
    images: int = 1
    karras: bool = False
    steps: int = 15
    cfg: float = 4.0

    def body(self) -> dict[str, object]:
        """The body of POST generate/async."""
        params = {
            "width": self.pixels,
            "height": self.pixels,
            "seed": str(self.seed),
            "sampler_name": self.sampler,
            "n": self.images,
            "karras": self.karras,
            "steps": self.steps,
            "cfg_scale": self.cfg,
        }
        return {"prompt": self.prompt, "params": params, "models": [MODEL], "r2": True}


WISHES = (
    Wish("a red circle on a blue background", seed=1),
    Wish("a large yellow star on a purple background", seed=2, sampler="k_dpmpp_2m", karras=True),
    Wish("a green heart on a white background", seed=3, sampler="k_euler_a"),
    Wish("an orange triangle on a cyan background", seed=4, pixels=128),
    Wish("a pink diamond at the top on a black background", seed=5, sampler="k_dpmpp_2m"),
    Wish("a white cross on a green background", seed=6, sampler="k_euler_a", pixels=128),
    Wish("a blue ring on a yellow background", seed=70, images=4, sampler="k_euler_a"),
)


class Client:
    """Somebody who wants pictures from a horde."""

    def __init__(self, url: str, api_key: str):
        self._api = f"{url}/api/v2"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy can't reach a horde on this machine
        self._session.headers["apikey"] = api_key

    def post(self, wish: Wish) -> str:
        """The new request's id."""
        answer = self._session.post(
            f"{self._api}/generate/async", json=wish.body(), timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        return answer.json()["id"]

    def is_over(self, request_id: str) -> bool:
        """Whether nothing of the request is waiting or in work any more."""
        answer = self._get(f"{self._api}/generate/check/{request_id}").json()
        return answer["done"] or answer["faulted"]

    def pictures(self, request_id: str) -> list[tuple[int, bytes]]:
        """(seed, file) of each picture that was delivered, in the order of their seeds."""
        status = self._get(f"{self._api}/generate/status/{request_id}").json()
        found = [(int(g["seed"]), self._get(g["img"]).content) for g in status["generations"]]
        return sorted(found)

    def _get(self, url: str) -> requests.Response:
        answer = self._session.get(url, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return answer


class Waiting:
    """Asks, not too often, whether all requests are over."""

    def __init__(self, client: Client, ids: Sequence[str]):
        self._client = client
        self._open = list(ids)
        self._next_poll = 0.0

    def is_done(self) -> bool:
        if time.monotonic() >= self._next_poll:
            self._open = [request_id for request_id in self._open if not self._over(request_id)]
            self._next_poll = time.monotonic() + POLL_SECONDS
        return not self._open

    def _over(self, request_id: str) -> bool:
        return self._client.is_over(request_id)


def run_demo(home: Path, console: Console) -> bool:
    """Serve the demo's wishes and lay the pictures out in `home`/demo-output/index.html.

    Whether every picture was made. Raises Interrupted after a signal, OSError for a full disk, and
    what a bridge fails with.
    """
    set_up_logging(console, home / "logs" / "dreamer.log", logging.WARNING)
    console.print("The demo model is made ready (330 MB, the first time only) …")
    ensure_checkpoint(home / "models")
    with Sandbox(models={MODEL: ReferenceModel(baseline="stable diffusion 1")}) as sandbox:
        console.print(f"A local horde listens at {sandbox.url}")
        client = Client(sandbox.url, CLIENT_KEY)
        ids = [client.post(wish) for wish in WISHES]
        board = Board()
        config = demo_config(sandbox.url)
        console.print(f"{len(ids)} requests are posted; the worker starts …")
        bridge = make_bridge(config, home, board, find_models(config, home))
        if serve(bridge, board_view(console, board), Waiting(client, ids).is_done):
            raise Interrupted
        console.print(jobs_table(board.view().rows))
        shots = _collect(client, ids)
    page = write_contact_sheet(home / "demo-output", shots)
    wanted = sum(wish.images for wish in WISHES)
    console.print(f"{len(shots)} of {wanted} pictures, {board.view().kudos:.2f} kudos")
    console.print(str(page), soft_wrap=True, highlight=False)
    return len(shots) == wanted


def demo_config(horde_url: str) -> BridgeConfig:
    """A worker for a machine of any speed, and for the demo model alone."""
    return BridgeConfig.model_validate(
        {
            "api_key": WORKER_KEY,
            "dreamer_name": "Demo Dreamer",
            "horde_url": horde_url,
            "models_to_load": (MODEL,),
            "ram_to_leave_free": "256 MiB",
            "preload_timeout": 600,
            "inference_step_timeout": 600,
            "process_timeout": 3600,
        }
    )


def _collect(client: Client, ids: Sequence[str]) -> list[Shot]:
    """What the horde hands out to the client, with what was asked for."""
    return [
        Shot(
            prompt=wish.prompt,
            settings=f"{wish.pixels}x{wish.pixels}, {wish.sampler}"
            f"{' karras' if wish.karras else ''}, {wish.steps} steps, cfg {wish.cfg:g}",
            seed=seed,
            file=file,
        )
        for request_id, wish in zip(ids, WISHES, strict=True)
        for seed, file in client.pictures(request_id)
    ]

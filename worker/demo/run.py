"""The demo: a local horde, a client with wishes, and this worker between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import requests
from rich.console import Console

from hordelib.demo_model import ensure_checkpoint
from hordelib.files.model import Model
from worker.children.signals import StopSignals
from worker.config.config import load_config
from worker.config.document import CONFIG_FILE
from worker.config.keys import BridgeConfig
from worker.demo.model_files import lay_out
from worker.demo.page import Shot, ShownText, write_contact_sheet
from worker.demo.sample_forms import FORM_WISHES, FormWish
from worker.demo.sample_requests import (
    CENSORED_WORD,
    FEW,
    INPAINTING_MODEL,
    MODEL,
    NOT_SHOWN,
    PIX2PIX_MODEL,
    USUAL,
    Wish,
)
from worker.demo.sample_texts import TEXT_WISH
from worker.errors import CantServeNow, ConfigError
from worker.horde.api import Offer
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.line.bridge import Bridge
from worker.models.files.on_disk import DISK_FLOOR_BYTES
from worker.models.introduction import NEWEST_AGENT
from worker.models.offer import offer_maker
from worker.models.opening import find_models
from worker.sandbox import ReferenceModel, Sandbox
from worker.scribe.text_server import ask_server
from worker.service.application_view import Shown, make_display
from worker.service.assembly import make_bridge, make_intake
from worker.service.logs import set_up_logging
from worker.service.machine import Machine
from worker.service.orders import Orders
from worker.service.pauses import Pauses
from worker.service.serve import serve
from worker.service.terminal import jobs_table

REFERENCE = {
    MODEL: ReferenceModel(baseline="stable diffusion 1"),
    INPAINTING_MODEL: ReferenceModel(baseline="stable diffusion 1", inpainting=True),
    PIX2PIX_MODEL: ReferenceModel(baseline="stable diffusion 1"),
}
ALL_MODELS = "demo-models"  # beside the owner's: these files only look like the horde's
WORKER_KEY, CLIENT_KEY = "sandbox-worker-key-000", "sandbox-client-key-000"
TIMEOUT_SECONDS = 30
POLL_SECONDS = 0.5


class Client:
    """Somebody who wants pictures from a horde."""

    def __init__(self, url: str, api_key: str):
        self._url = url
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

    def post_forms(self, wish: FormWish) -> str:
        """As `post`, of an alchemist."""
        answer = self._session.post(
            f"{self._api}/interrogate/async", json=wish.body(), timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        return answer.json()["id"]

    def are_forms_over(self, request_id: str) -> bool:
        return self._forms(request_id)["state"] in ("done", "faulted")

    def shot(self, request_id: str, wish: FormWish) -> Shot | None:
        """What came of its only form; None where nothing did."""
        (form,) = self._forms(request_id)["forms"]
        if "result" not in form:
            return None
        value = form["result"][wish.form]
        is_picture = isinstance(value, str) and value.startswith(f"{self._url}/")
        return wish.shot(value, self._get(value).content if is_picture else None)

    def post_text(self) -> str:
        """As `post`, of a scribe."""
        answer = self._session.post(
            f"{self._api}/generate/text/async", json=TEXT_WISH.body(), timeout=TIMEOUT_SECONDS
        )
        answer.raise_for_status()
        return answer.json()["id"]

    def is_text_over(self, request_id: str) -> bool:
        status = self._text(request_id)
        return status["done"] or status["faulted"]

    def text(self, request_id: str) -> ShownText | None:
        """None where none was delivered."""
        for written in self._text(request_id)["generations"]:
            return TEXT_WISH.shown(written["text"], written["model"])
        return None

    def _text(self, request_id: str) -> Any:
        return self._get(f"{self._api}/generate/text/status/{request_id}").json()

    def _forms(self, request_id: str) -> Any:
        return self._get(f"{self._api}/interrogate/status/{request_id}").json()

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

    def __init__(
        self, client: Client, ids: Sequence[str], form_ids: Sequence[str], text_ids: Sequence[str]
    ):
        self._open = [(client.is_over, each) for each in ids]
        self._open += [(client.are_forms_over, each) for each in form_ids]
        self._open += [(client.is_text_over, each) for each in text_ids]
        self._next_poll = 0.0

    def is_done(self) -> bool:
        if time.monotonic() >= self._next_poll:
            self._open = [(is_over, each) for is_over, each in self._open if not is_over(each)]
            self._next_poll = time.monotonic() + POLL_SECONDS
        return not self._open


def run_demo(home: Path, console: Console, wishes: Sequence[Wish], signals: StopSignals) -> bool:
    """Serve the wishes and lay the pictures out in `home`/demo-output/index.html.

    Whether every picture was made. Raises KeyboardInterrupt after a signal, OSError for a full
    disk, and what a bridge fails with.
    """
    set_up_logging(console, home / "logs" / "dreamer.log", logging.WARNING)
    console.print("The demo model is made ready (330 MB, the first time only) …")
    texts: Mapping[str, object] = {} if wishes is FEW else _text_keys(home, console)
    config_of = _prepare(home, wishes, texts)
    form_wishes = () if wishes is FEW else FORM_WISHES
    with Sandbox(models=REFERENCE) as sandbox:
        console.print(f"A local horde listens at {sandbox.url}")
        client = Client(sandbox.url, CLIENT_KEY)
        ids = [client.post(wish) for wish in wishes]
        form_ids = [client.post_forms(wish) for wish in form_wishes]
        text_ids = [client.post_text()] if texts else []
        journal = Journal(Ledger(None))
        config = config_of(sandbox.url)
        count = len(ids) + len(form_ids) + len(text_ids)
        console.print(f"{count} requests are posted; the worker starts …")
        bridge = _make_bridge(config, home, journal)
        is_done = Waiting(client, ids, form_ids, text_ids).is_done
        with TemporaryDirectory() as orders:
            pauses = Pauses(Orders(Path(orders)))
            machine = Machine(config, home, DISK_FLOOR_BYTES)
            shown = Shown(journal, pauses, signals, lambda: bridge.models, machine)
            view = make_display(console, shown)
            if serve(bridge, view, is_done, signals=signals, pauses=pauses):
                raise KeyboardInterrupt
        console.print(jobs_table(journal.view().rows))
        shots = _collect(client, ids, wishes)
        answered = zip(form_ids, form_wishes, strict=True)
        forms = [shot for id, wish in answered if (shot := client.shot(id, wish))]
        written = [text for id in text_ids if (text := client.text(id))]
    remark = "" if wishes is FEW else NOT_SHOWN
    page = write_contact_sheet(home / "demo-output", [*shots, *forms], remark, written)
    wanted = sum(wish.images for wish in wishes)
    console.print(f"{len(shots)} of {wanted} pictures, {journal.view().kudos:.2f} kudos")
    if form_wishes:
        console.print(f"{len(forms)} of {len(form_wishes)} forms of alchemy")
    if text_ids:
        console.print(f"{len(written)} of {len(text_ids)} texts")
    console.print(str(page), soft_wrap=True)
    made = (len(shots), len(forms), len(written))
    return made == (wanted, len(form_wishes), len(text_ids))


def _text_keys(home: Path, console: Console) -> Mapping[str, object]:
    """Those of the owner's bridgeData.yaml that lead to a text server which answers."""
    file = home / CONFIG_FILE
    if not file.exists():
        return {}
    try:
        config = load_config(file)
        if config.text_backend is None:
            return {}
        ask_server(config)
    except (ConfigError, CantServeNow) as error:
        console.print(f"No text is shown: {error}", markup=False)
        return {}
    keys = ("text_backend", "text_api", "text_key", "text_model")
    return {"scribe_name": "Demo Scribe", **{key: getattr(config, key) for key in keys}}


def _prepare(
    home: Path, wishes: Sequence[Wish], texts: Mapping[str, object]
) -> Callable[[str], BridgeConfig]:
    """Put the files there that the wishes need; gives the configuration for a horde's address."""
    if wishes is FEW:
        ensure_checkpoint(home / "models")
        return demo_config
    lay_out(home / ALL_MODELS / "models", ensure_checkpoint(home / "models"))
    return lambda url: demo_config(
        url,
        cache_home=ALL_MODELS,
        models=tuple(REFERENCE),
        others={"alchemist_name": "Demo Alchemist", **texts},
    )


def _make_bridge(config: BridgeConfig, home: Path, journal: Journal) -> Bridge:
    """Offers a kind of job although some of its files are not there: no wish asks for those."""
    models = find_models(config, home)
    make_usual = offer_maker(config, home)

    def make_offer(models: Mapping[str, Model], broken: frozenset[Path]) -> Offer:
        return replace(
            make_usual(models, broken),
            bridge_agent=NEWEST_AGENT,
            allow_controlnet=True,
            allow_extended_controlnet=True,
            allow_sdxl_controlnet=True,
            allow_post_processing=True,
        )

    intake = make_intake(config, home, models, make_offer)
    return make_bridge(config, home, models, journal, intake=intake)


def demo_config(
    horde_url: str,
    *,
    cache_home: str = ".",
    models: tuple[str, ...] = (MODEL,),
    others: Mapping[str, object] = MappingProxyType({}),
) -> BridgeConfig:
    """A worker for a machine of any speed, and for the demo's models alone; `others` are the keys
    of the other kinds of work."""
    return BridgeConfig.model_validate(
        {
            "api_key": WORKER_KEY,
            "dreamer_name": "Demo Dreamer",
            "horde_url": horde_url,
            "models_to_load": models,
            "cache_home": cache_home,
            "max_power": 18,
            "censorlist": (CENSORED_WORD,),
            "ram_to_leave_free": "256 MiB",
            "preload_timeout": 600,
            "inference_step_timeout": 600,
            "process_timeout": 3600,
            **others,
        }
    )


def _collect(client: Client, ids: Sequence[str], wishes: Sequence[Wish]) -> list[Shot]:
    """What the horde hands out to the client, with what was asked for."""
    return [
        Shot(wish.label, wish.prompt, _settings(wish), seed, file)
        for request_id, wish in zip(ids, wishes, strict=True)
        for seed, file in client.pictures(request_id)
    ]


def _settings(wish: Wish) -> str:
    params = {**USUAL, **wish.params}
    karras = " karras" if params["karras"] else ""
    size = f"{params['width']}x{params['height']}"
    sampler = f"{params['sampler_name']}{karras}"
    return f"{size}, {sampler}, {params['steps']} steps, cfg {params['cfg_scale']:g}"

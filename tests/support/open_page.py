"""The page of a worker whose state folder says what it does; models come, and no job is done."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from worker.config.config import load_config
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.keeper import ModelOffering
from worker.models.opening import Models
from worker.page.app import Watched
from worker.page.server import PageServer, page_of
from worker.safety.gallery import Gallery
from worker.service.assembly import make_adapters, make_intake
from worker.service.history import History
from worker.service.orders import Orders
from worker.service.overview import JobOverview, KindOverview, Overview
from worker.service.updates import Updates

API_KEY = "a-key-that-nobody-shall-see"
PASSWORD = "correct horse"
SECONDS = 20


@dataclass
class OpenPage:
    server: PageServer
    watched: Watched
    url: str

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(
            self.url + path, headers=headers, timeout=SECONDS, allow_redirects=False
        )

    def post(
        self, path: str, body: Any, http: requests.Session | None = None, **headers: str
    ) -> requests.Response:
        """As the page's own script does; headers that are "" are left out."""
        given: dict[str, str | None] = {"Origin": self.url, **headers}
        given = {name: value or None for name, value in given.items()}
        session = http or requests.Session()
        try:
            return session.post(self.url + path, json=body, headers=given, timeout=SECONDS)
        finally:
            if http is None:
                session.close()


@contextmanager
def open_page(home: Path, more: str = "") -> Generator[OpenPage]:
    """With a configuration of its own, which may have `more` keys."""
    home.mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{free_port()}"
    config_file = home / "bridgeData.yaml"
    config_file.write_text(
        f"# mine\napi_key: {API_KEY}\ndreamer_name: tester\nhorde_url: http://127.0.0.1:9\n"
        f"models_to_load:\n  - Deliberate  # the best\npage: {url}\n{more}",
        "utf-8",
    )
    state = home / "state"
    state.mkdir(exist_ok=True)
    with closing(History(state / "history.sqlite")) as history:
        orders = Orders(state)
        orders.answer(at_work())
        config = load_config(config_file)
        adapters = make_adapters(config, config.models_folder(home))
        offering = ModelOffering(take_inventory(ModelsFolder.of(config, home)))
        offered = make_intake(config, home, Models({}, ()), adapters=adapters).offered
        gallery = Gallery(lambda: config.now.show_pictures)
        updates = Updates(config, home, lambda: None)
        watched = Watched(
            config, config_file, home, offering, adapters, orders, history, gallery, updates
        )
        with offering.kept_up(offered), page_of(watched) as server:
            yield OpenPage(server, watched, url)


def at_work() -> Overview:
    job = JobOverview(
        id="a", model="Deliberate", stage="running", images=1, width=512, height=768, step=12,
        steps=30, seconds_left=4.5, kudos=12.3, loras=("a <b>bold</b> LoRA",),
    )  # fmt: skip
    waiting = JobOverview(id="b", model="Deliberate", stage="waiting", images=1)
    forms = KindOverview(
        kind="form", name="an <i>alchemist</i>", in_hand=2, done=7, failed=1, kudos=9.5
    )
    return Overview(
        doing="serving", began=1.8e9, at=1.8e9 + 7200, models=("Deliberate",), jobs=(job, waiting),
        images=123, kudos=1234.5, failed=1, others=(forms,),
    )  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]

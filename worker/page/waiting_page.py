"""The page of a worker that serves nothing for now: why, and the button that changes it.

It stands at the page's address before a worker that lacks what it must not serve without, and after
one that was ended by its page. The worker's folder is held all the while, and its orders are heard.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from enum import Enum, auto
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

from aiohttp import web

from hordelib.safety.csam import PACKAGE
from worker.children.signals import StopSignals
from worker.command_line import as_typed
from worker.config.document import CONFIG_FILE
from worker.config.keys import BridgeConfig
from worker.errors import JudgeUnusable
from worker.page.app import told_by
from worker.page.extras import Extras
from worker.page.guard import Guard, json_of
from worker.page.server import PageServer
from worker.page.settings import keep_hash
from worker.page.site import make_site
from worker.safety.policy import unfound
from worker.service.metrics import make_metrics
from worker.service.orders import OF_ONE_LIFE, WAITING, Orders
from worker.service.overview import Overview
from worker.service.state_folder import STATE, StateFolder

ORDER_SECONDS = 1.0  # between two looks at orders
WITHOUT = "nothing is served without it; the worker starts by itself as soon as it is installed"
LOOK_SECONDS = 5  # between two looks whether what is missing has come by a terminal


class Ended(Enum):
    """What ended the wait."""

    no_page = auto()
    """There is none, or none that would help; nothing was waited for."""
    by_owner = auto()
    """An order, or a signal."""
    go_on = auto()


@dataclass(frozen=True, slots=True)
class _Wait:
    """`told` is why nothing is served. `lack` says what has to come first, "" for nothing; without
    it, a button starts the worker."""

    title: str
    told: str
    lack: Callable[[], str] | None = None


def wait_for_safety(config: BridgeConfig, home: Path, signals: StopSignals) -> Ended:
    """Where horde_safety is required and missing, show a page that installs it, until it is there.

    Does nothing where the page can't install it. Raises StateTaken while another worker runs here.
    """

    def lack() -> str:
        invalidate_caches()  # a terminal may have installed it
        try:
            unfound(config, home)
        except JudgeUnusable as error:
            return str(error)
        return ""

    if not (told := lack()) or not Extras(config, home).can_install(PACKAGE):
        return Ended.go_on
    title = f"This worker needs {PACKAGE}"
    return _waited(config, home, signals, _Wait(title, told, lack))


def wait_for_start(config: BridgeConfig, home: Path, signals: StopSignals) -> Ended:
    """After an end that was ordered on the page: show one that starts the worker again."""
    told = "the worker was ended on its page, and serves nothing until it is started again"
    return _waited(config, home, signals, _Wait("The worker has ended", told))


def _waited(config: BridgeConfig, home: Path, signals: StopSignals, wait: _Wait) -> Ended:
    page = _WaitingPage(config, home, wait)
    server = PageServer(
        config.page, page.application, lambda: keep_hash(home / CONFIG_FILE, config)
    )
    with ExitStack() as stack:
        stack.enter_context(closing(StateFolder.open(home / STATE)))
        if not server.start():
            return Ended.no_page
        stack.callback(server.close)
        orders = Orders(home / STATE)
        orders.begin()
        stack.callback(orders.end)
        stack.enter_context(make_metrics(config, orders).served())
        with suppress(OSError):
            orders.answer(Overview(doing=WAITING, why=as_typed(wait.told)))
        print(
            f"{as_typed(wait.told)}.\nOpen {server.shown_address} in a browser, which has a button"
            " for that; or press Ctrl-C to end the worker.",
            flush=True,
        )
        return page.wait(orders, signals)


class _WaitingPage:
    def __init__(self, config: BridgeConfig, home: Path, wait: _Wait):
        self._extras = Extras(config, home)
        self._wait = wait
        self._is_started = False

    def application(self, guard: Guard) -> web.Application:
        # page.js tells the form of a new worker, which may have been here before, that it may go.
        app = make_site(guard, "waiting.html", ("waiting.js", "views.js", "page.js"))
        app.add_routes(
            [
                web.get("/api/waiting", self.shown),
                web.post("/api/waiting/install", self.install),
                web.post("/api/waiting/start", self.start),
            ]
        )
        return app

    async def shown(self, _request: web.Request) -> web.Response:
        return await told_by(self._shown)

    async def install(self, request: web.Request) -> web.Response:
        name = str((await json_of(request)).get("name"))
        return await told_by(lambda: self._extras.install(name))

    async def start(self, _request: web.Request) -> web.Response:
        self._is_started = self._wait.lack is None
        return web.json_response({})

    def wait(self, orders: Orders, signals: StopSignals) -> Ended:
        """Raises KeyboardInterrupt at a signal where the signals do."""
        looks = 0
        while not signals.count and not orders.is_given(*OF_ONE_LIFE):
            if self._is_started or (looks % LOOK_SECONDS == 0 and self._has_come()):
                return Ended.go_on
            looks += 1
            signals.nap(ORDER_SECONDS)
        return Ended.by_owner

    def _has_come(self) -> bool:
        lack = self._wait.lack
        return lack is not None and not self._extras.progress["name"] and not lack()

    def _shown(self) -> dict[str, Any]:
        lack = self._wait.lack
        return {
            "title": self._wait.title,
            "told": self._wait.told if lack is None else WITHOUT,
            "can_start": lack is None,
            "extras": [each for each in self._extras.shown() if lack and each["name"] == PACKAGE],
            "installing": self._extras.progress,
        }

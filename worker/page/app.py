"""The page's addresses: what a browser asks and orders, and what it gets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from hordelib.errors import HordelibError
from worker.config.config import load_config
from worker.config.keys import BridgeConfig
from worker.config.live import Needs, needs
from worker.errors import ConfigError, WorkerError
from worker.loras.adapters import Adapters
from worker.models.files.on_disk import DISK_FLOOR_BYTES
from worker.models.keeper import ModelOffering
from worker.page.extras import Extras
from worker.page.guard import Guard, json_of, refusal
from worker.page.hordes_side import HordesSide
from worker.page.live import Live
from worker.page.log_lines import LogLines
from worker.page.lora_shelf import loras_shown, remove_lora
from worker.page.model_shelf import ModelShelf
from worker.page.settings import Outdated, keep_hash, save_settings, settings_shown
from worker.page.site import make_site
from worker.safety.gallery import Gallery
from worker.service.history import History
from worker.service.machine import Machine
from worker.service.orders import Given, Order, Orders
from worker.service.overview import Overview, sentence
from worker.service.updates import Updates

log = logging.getLogger(__name__)

MOST_HISTORY_HOURS = 24 * 31
LONGEST_NAME = 300  # characters, of a model
LONGEST_PAUSE = 366 * 86400.0
_CHANGES = TypeAdapter(dict[StrictStr, StrictBool | StrictInt | StrictStr | list[StrictStr] | None])
Work = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Watched:
    """The running worker as the page sees it: nothing here can hold up a job."""

    config: BridgeConfig
    config_file: Path
    home: Path
    offering: ModelOffering
    adapters: Adapters
    orders: Orders
    history: History
    gallery: Gallery  # of pictures, where the owner wants to see them
    updates: Updates


def make_app(watched: Watched, guard: Guard, lines: LogLines) -> web.Application:
    app = make_site(guard, "index.html", _FILES)
    page = _Page(watched, guard, lines)
    app.add_routes(
        [
            web.get("/events", page.live.stream),
            web.get(r"/pictures/{number:[0-9]{1,9}}", page.picture),
            web.get("/api/history", page.history),
            web.get("/api/horde", page.horde),
            web.get("/api/log", page.log),
            web.get("/api/models", page.models),
            web.get("/api/models/plan", page.plan),
            web.post("/api/models/add", page.add),
            web.post("/api/models/pause", page.pause_download),
            web.post("/api/models/resume", page.resume_download),
            web.post("/api/models/cancel", page.cancel_download),
            web.post("/api/models/remove", page.remove),
            web.get("/api/loras", page.loras),
            web.post("/api/loras/remove", page.remove_lora),
            web.get("/api/settings", page.settings),
            web.post("/api/settings", page.save),
            web.get("/api/extras", page.extras),
            web.post("/api/extras/install", page.install),
            web.post("/api/order", page.order),
            web.post("/api/update", page.update),
        ]
    )
    return app


_FILES = ("page.js", "views.js", "charts.js", "models.js")


class _Page:
    def __init__(self, watched: Watched, guard: Guard, lines: LogLines):
        self._watched = watched
        self._guard = guard
        self._lines = lines
        self._machine = Machine(watched.config, watched.home, DISK_FLOOR_BYTES)
        self._shelf = ModelShelf(watched.config_file, watched.home, watched.offering)
        self._hordes_side = HordesSide(
            watched.config, watched.home, watched.offering, watched.updates
        )
        self._extras = Extras(watched.config, watched.home)
        self._waiting: set[str] = set()  # keys that were saved and need a restart
        self.live = Live(self._look, lines, guard)

    def _look(self) -> dict[str, Any]:
        overview = self._overview()
        return {
            "worker": self._watched.config.dreamer_name,
            "sentence": sentence(overview),
            "overview": overview.model_dump(),
            "machine": self._machine.read().model_dump(),
            "downloads": self._shelf.fetches(),
            "pictures": self._pictures(),
            "installing": self._extras.progress,
            "waiting": sorted(self._waiting),
            "has_password": bool(self._guard.password_hash),
        }

    def _pictures(self) -> list[dict[str, Any]] | None:
        """None where the owner has not asked for them."""
        gallery = self._watched.gallery
        if not gallery.is_wanted:
            return None
        return [
            {"number": each.number, "at": each.at, "is_nsfw": each.is_nsfw}
            for each in gallery.pictures()
        ]

    def _overview(self) -> Overview:
        return self._watched.orders.latest

    # ---- what is shown -----------------------------------------------------------------------

    async def history(self, request: web.Request) -> web.Response:
        try:
            last = int(request.query.get("hours", "24"))
        except ValueError:
            return refusal(400, "hours: expected a whole number")
        last = min(max(last, 1), MOST_HISTORY_HOURS)
        hours = await asyncio.to_thread(self._watched.history.hours, last)
        return web.json_response({"hours": [asdict(hour) for hour in hours]})

    async def horde(self, _request: web.Request) -> web.Response:
        served = self._overview().models
        return await told_by(lambda: self._hordes_side.shown(served))

    async def log(self, _request: web.Request) -> web.Response:
        return web.json_response({"lines": self._lines.since(0)})

    async def models(self, _request: web.Request) -> web.Response:
        served = self._overview().models
        return await told_by(lambda: self._shelf.shown(served))

    async def picture(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        file = await asyncio.to_thread(self._watched.gallery.small, number)
        if file is None:
            return refusal(404, "there is no such picture any more")
        return web.Response(body=file, content_type="image/webp")

    async def loras(self, _request: web.Request) -> web.Response:
        return await told_by(lambda: loras_shown(self._watched.adapters))

    async def plan(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")[:LONGEST_NAME]
        return await told_by(lambda: self._shelf.plan(name))

    async def settings(self, _request: web.Request) -> web.Response:
        return await told_by(lambda: settings_shown(self._watched.config_file))

    async def extras(self, _request: web.Request) -> web.Response:
        return await told_by(lambda: {"extras": self._extras.shown()})

    # ---- what is ordered ---------------------------------------------------------------------

    async def add(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "name")
        return await told_by(lambda: self._shelf.add(name))

    async def pause_download(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "name")
        return await told_by(lambda: self._shelf.pause(name))

    async def resume_download(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "name")
        return await told_by(lambda: self._shelf.resume(name))

    async def cancel_download(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "name")
        return await told_by(lambda: self._shelf.cancel(name))

    async def remove(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "name")
        in_hand = {job.model for job in self._overview().jobs}
        return await told_by(lambda: self._shelf.remove(name, in_hand))

    async def remove_lora(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "file")
        return await told_by(lambda: remove_lora(self._watched.adapters, name))

    async def install(self, request: web.Request) -> web.Response:
        name = _text_of(await json_of(request), "name")
        return await told_by(lambda: self._extras.install(name))

    async def save(self, request: web.Request) -> web.Response:
        body = await json_of(request)
        version = _text_of(body, "version")
        try:
            changes = _CHANGES.validate_python(body.get("changes"))
        except ValidationError:
            return refusal(400, "changes: expected texts, numbers, true, false or lists")
        config_file = self._watched.config_file
        try:
            saved = await asyncio.to_thread(save_settings, config_file, version, changes)
            config = await asyncio.to_thread(load_config, config_file)
        except Outdated:
            told = "bridgeData.yaml has changed meanwhile; look at it again, then save"
            return refusal(409, told)
        except (WorkerError, OSError) as error:
            return refusal(400, *lines_of(error))
        self._watched.config.take_over(config)
        self._waiting |= {key for key in saved if needs(key) is Needs.restart}
        if "page_password" in changes:
            kept = await asyncio.to_thread(keep_hash, config_file, config)
            self._guard.take_password(kept)
        return web.json_response({each: [k for k in saved if needs(k) is each] for each in Needs})

    async def update(self, _request: web.Request) -> web.Response:
        """Take the newest release, once the jobs in hand are finished."""
        return await told_by(self._watched.updates.take)

    async def order(self, request: web.Request) -> web.Response:
        """serve, drain, restart, stop, or pause: `until` then, or until another order."""
        body = await json_of(request)
        try:
            given = Given.model_validate(body)
        except ValidationError:
            told = f"order: expected {', '.join(Order)}; until: seconds since 1970 UTC"
            return refusal(400, told)
        if given.until is not None and not 0 < given.until - time.time() <= LONGEST_PAUSE:
            return refusal(400, "until: expected a moment of the next year")
        if given.order is Order.restart:  # what can't be used is told before anything ends
            try:
                await asyncio.to_thread(load_config, self._watched.config_file)
            except ConfigError as error:
                return refusal(400, *error.problems)
        if given.order in (Order.drain, Order.stop):  # nobody else could start it from afar
            given = given.model_copy(update={"stays": True})
        log.info("page: the order is to %s", given.order)
        return await told_by(lambda: self._watched.orders.give_here(given))


async def told_by(work: Work) -> web.Response:
    """What a thread says that may wait for the disk or the network."""
    try:
        return web.json_response(await asyncio.to_thread(work) or {})
    except (WorkerError, HordelibError, OSError) as error:
        return refusal(400, *lines_of(error))


def lines_of(error: Exception) -> tuple[str, ...]:
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, OSError) and error.strerror:
        return (f"{error.strerror}: {error.filename}" if error.filename else error.strerror,)
    return (str(error),)


def _text_of(body: Mapping[str, object], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise web.HTTPBadRequest(reason=f"{key}: expected a text")
    return value

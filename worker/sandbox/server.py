"""The sandbox as a running server: a thread of its own with its own event loop."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Thread
from types import FrameType
from typing import Self

from aiohttp import web

from worker.command_line import LAUNCHER, as_typed
from worker.errors import PortTaken
from worker.sandbox.app import App, TallyBook
from worker.sandbox.books import Absence, Books, Tally
from worker.sandbox.faults import Endpoint, Faults
from worker.sandbox.horde import Horde, Timing
from worker.sandbox.limits import DEFAULT_LIMITS, Limit, RateLimiter
from worker.sandbox.records import DEFAULT_USERS, ReferenceModel, User
from worker.sandbox.registration import DEFAULT_MAINTENANCE_MESSAGE

HOST = "127.0.0.1"
SHUTDOWN_SECONDS = 0.5
STOP_SECONDS = 10.0
LAST_ROUNDS = 10  # of the loop, until a connection that was accepted is one that can be closed


class Sandbox:
    """A local horde on loopback.

    Its books outlive `stop`, and a stopped sandbox that starts again takes the same port: that is
    how a horde that goes away for a while is played.
    """

    def __init__(
        self,
        models: Mapping[str, ReferenceModel],
        port: int = 0,
        *,
        users: Iterable[User] = DEFAULT_USERS,
        clock: Callable[[], float] = time.time,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        limits: Mapping[Endpoint, Limit] = DEFAULT_LIMITS,
    ):
        self.horde = Horde(models, users, clock, timing)
        """The rules and records behind the API; its methods may be called from any thread."""
        self.faults = Faults()
        self._tally = TallyBook()
        self._app = App(self.horde, self.faults, RateLimiter(limits, clock), self._tally)
        self._port = port
        self._running: _Running | None = None
        self._clock = clock
        self._stopped_at: float | None = None
        self._away: list[Absence] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it listens. Raises PortTaken."""
        listener = _listener(self._port)
        self._port = listener.getsockname()[1]
        self._running = _Running(self._app, listener)
        if self._stopped_at is not None:
            self._away.append(Absence(self._stopped_at, self._clock()))

    def stop(self) -> None:
        """Close all connections, busy ones too, and end the thread. Harmless when stopped."""
        if self._running is not None:
            self._stopped_at = self._clock()
            self._running.stop()
            self._running = None

    @property
    def url(self) -> str:
        """Origin of the API, without /api. Valid once started."""
        return f"http://{HOST}:{self._port}"

    def books(self) -> Books:
        """What has happened until now."""
        return self.horde.books(self.tally(), self._away)

    def open_books(self) -> Books:
        """Of requests that are neither done nor expired, and of generations in a worker's hands.

        As cheap after ten thousand jobs as after one.
        """
        return self.horde.books(self.tally(), self._away, only_open=True)

    def tally(self) -> Tally:
        """The calls alone: as cheap after ten thousand jobs as after one."""
        return self._tally.copy()

    def image(self, generation_id: str) -> bytes | None:
        """The bytes uploaded for a generation."""
        stored = self.horde.store.get("transient", f"{generation_id}.webp")
        return None if stored is None else stored.data

    def clean(self) -> None:
        """Run the cleaner now instead of at its next minute."""
        self.horde.clean()

    def set_maintenance(
        self, worker: str, on: bool, message: str = DEFAULT_MAINTENANCE_MESSAGE
    ) -> None:
        """Maintenance of the worker with that name. Raises Refusal if there is none."""
        self.horde.set_maintenance(worker, message if on else None)


class _Running:
    """One life of the server, from start to stop."""

    def __init__(self, app: App, listener: socket.socket):
        self._app = app
        self._listener = listener
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError(f"the sandbox did not stop within {STOP_SECONDS:g} s")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        runner = web.AppRunner(
            self._app.build(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS
        )
        await runner.setup()
        try:
            site = web.SockSite(runner, self._listener)
            await site.start()
            await self._stopping.wait()
            await site.stop()
            for _ in range(LAST_ROUNDS):  # who came at the last moment is a connection then
                await asyncio.sleep(0)
        finally:
            await runner.cleanup()


def _listener(port: int) -> socket.socket:
    """Bound in the caller's thread: it fails where it is asked for, and accepts from then on."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise PortTaken(port, error.strerror or str(error)) from error


def serve(models: Mapping[str, ReferenceModel], port: int) -> None:
    """Run a sandbox in the foreground until SIGINT or SIGTERM. Raises PortTaken.

    Only for the main thread: it takes over both signals while it runs.
    """
    stopped = Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    with Sandbox(models, port) as sandbox:
        before = [signal.signal(number, stop) for number in signals]
        try:
            print(_guide(sandbox.url, next(iter(models), "")), flush=True)
            stopped.wait()
        finally:
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)
    print("The sandbox has stopped.", flush=True)


def _guide(url: str, model: str) -> str:
    keys = "\n".join(f"  {user.username:<14} {user.key}" for user in DEFAULT_USERS)
    owner = next(user for user in DEFAULT_USERS if user.alias == "owner")
    setup = (
        f"{LAUNCHER} setup --horde-url {url} --model-reference none --models '{model}'"
        f" --api-key {owner.key} --name 'My worker' --yes"
    )
    client = next(user for user in DEFAULT_USERS if user.alias == "client")
    return f"""\
A local horde listens on {url}

Keys (a worker uses the owner's, a client the client's):
{keys}

Post a job:
  curl -s {url}/api/v2/generate/async -H 'apikey: {client.key}' \\
    -d '{{"prompt": "a red circle on a blue background", "models": ["{model}"]}}'

Ask how it is doing, then fetch it (ID is the "id" of the answer above):
  curl -s {url}/api/v2/generate/check/ID
  curl -s {url}/api/v2/generate/status/ID

Set a worker up for it, in a folder of its own:
  {as_typed(setup)}

Ctrl-C stops it; nothing is kept."""

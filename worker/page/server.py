"""The page's server: a thread of its own with its own event loop, which may fail whole.

No thread of a job waits for it or is waited for by it: it reads what the worker has written down of
itself, and gives orders by the same file as the command line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from threading import Thread
from urllib.parse import urlsplit

from aiohttp import web

from worker.config.secret_values import secrets_of
from worker.page.app import Watched, make_app
from worker.page.guard import Guard
from worker.page.log_lines import LogLines
from worker.page.settings import keep_hash

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 128  # so that strangers can't take the files that jobs need
WAITING_CONNECTIONS = 16
IDLE_SECONDS = 30.0  # of a connection between two requests
STOP_SECONDS = 2.0
TROUBLE_SECONDS = 1.0  # until connections are taken again after the system refused one


class PageServer:
    """Serves an application until `close`. Without an address it does nothing.

    `password_hash` is asked in the server's own thread: a hash takes a moment.
    """

    def __init__(
        self,
        address: str,
        application: Callable[[Guard], web.Application],
        password_hash: Callable[[], str],
    ):
        self.address = address
        self._application = application
        self._password_hash = password_hash
        self._thread: Thread | None = None
        self._listener: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()

    @property
    def thread(self) -> Thread | None:
        return self._thread

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def start(self) -> bool:
        """Whether it listens. What hinders it is a line in the log; jobs are served without it."""
        if not self.address:
            return False
        url = urlsplit(self.address)
        host, port = url.hostname or "", url.port or 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server(
                (host, port), family=family, backlog=WAITING_CONNECTIONS
            )
            self._listener.setblocking(False)
        except OSError as error:
            told = "no page at %s (%s): set `page` to another port, such as http://127.0.0.1:%d"
            why = os.strerror(error.errno) if error.errno else str(error)
            log.warning(told, self.address, why, port + 1)
            return False
        self._thread = Thread(target=self._run, name="page", daemon=True)
        self._thread.start()
        return True

    def close(self) -> None:
        """Ends all connections; a thread that does not end is left to the process' end."""
        if self._thread is not None:
            with suppress(RuntimeError):  # the loop is closed: the page has failed before
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_SECONDS)
        else:
            self._loop.close()

    @property
    def shown_address(self) -> str:
        """For a browser: 0.0.0.0 and :: are no addresses that a browser can open."""
        for anywhere in ("0.0.0.0", "[::]"):
            if f"//{anywhere}:" in self.address:
                return self.address.replace(anywhere, socket.gethostname())
        return self.address

    def _run(self) -> None:
        """The thread: what ends it ends the page alone."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the worker serves on, whatever it is
            log.error("the page has ended (%s); jobs go on, and a restart brings it back", error)
        finally:
            if self._listener is not None:  # or browsers would wait for nothing
                self._listener.close()

    async def _serve(self) -> None:
        guard = Guard(await asyncio.to_thread(self._password_hash))
        app = self._application(guard)
        runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=IDLE_SECONDS, shutdown_timeout=0.2
        )
        await runner.setup()
        try:
            taking = asyncio.create_task(self._take_connections(runner))
            await self._stopping.wait()
            taking.cancel()
        finally:
            await runner.cleanup()

    async def _take_connections(self, runner: web.AppRunner) -> None:
        """As many as there may be; what comes beyond that is closed at once."""
        server, listener = runner.server, self._listener
        assert server is not None
        assert listener is not None
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listener)
            except OSError as error:  # no more files, say
                log.warning("page: no connection can be taken (%s)", error)
                await asyncio.sleep(TROUBLE_SECONDS)
                continue
            if len(server.connections) >= MOST_CONNECTIONS:
                connection.close()
                continue
            with suppress(OSError):
                await self._loop.connect_accepted_socket(server, connection)


@contextmanager
def page_of(watched: Watched) -> Generator[PageServer]:
    """The page, for as long as the worker runs; its address is logged."""
    config = watched.config
    lines = LogLines(secrets_of(config))
    page = PageServer(
        config.page,
        lambda guard: make_app(watched, guard, lines),
        lambda: keep_hash(watched.config_file, config),
    )
    if page.start():
        logging.getLogger().addHandler(lines)
        log.info("page: open %s in a browser", page.shown_address)
    try:
        yield page
    finally:
        logging.getLogger().removeHandler(lines)
        page.close()

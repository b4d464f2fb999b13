"""HTTP that ends in time, whatever the other side does.

A socket's own time-out starts anew at each byte: a peer that drips one now and then in a
handshake, a header or a body, or takes an upload as slowly, would hold its caller for ever. So
the connections of an HttpCall are cut at its deadline.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from http.client import HTTPException, HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from threading import Lock
from types import TracebackType
from typing import Any, Self, cast

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HeaderParsingError,
    NameResolutionError,
    NewConnectionError,
)
from urllib3.util.response import assert_header_parsing

from worker.addresses import Address, addresses
from worker.deadlines import deadline

Screen = Callable[[str, Sequence[Address]], Sequence[Address]]


def anywhere(_: str, found: Sequence[Address]) -> Sequence[Address]:
    """The screen of a host that the owner named."""
    return found


class HttpCall:
    """What the thread that enters it does over HttpSession and these connections, until `until`.

    `until` is of time.monotonic(). `screen` picks from the addresses of a host those that may be
    connected to; what it raises goes to the caller. It isn't asked about the owner's proxy.
    """

    def __init__(self, until: float, screen: Screen = anywhere):
        self._until = until
        self.screen = screen
        self.was_sent = False
        """Whether a whole request went out. Before, nobody can have acted on it."""
        self._was_cut = False
        self._lock = Lock()
        self._wires: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._token = _under_way.set(self)
        self._deadline = deadline(self.seconds_left(), self._cut)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _under_way.reset(self._token)
        self._deadline.cancel()
        with self._lock:
            for wire in self._wires:
                wire.close()
            self._wires.clear()

    @property
    def is_overdue(self) -> bool:
        """True once the call may have been cut. A body without a length just ends then."""
        return self._was_cut or time.monotonic() >= self._until

    def seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def watch(self, wire: socket.socket) -> None:
        """Have this connection cut at the deadline."""
        # A twin, since TLS takes the first one's file descriptor away. It shares the connection.
        twin = socket.fromfd(wire.fileno(), wire.family, wire.type)
        with self._lock:
            self._wires.append(twin)
            if self._was_cut:
                _shut(twin)

    def _cut(self) -> None:
        with self._lock:
            self._was_cut = True
            for wire in self._wires:
                _shut(wire)


_under_way: ContextVar[HttpCall] = ContextVar("_under_way")


def _shut(wire: socket.socket) -> None:
    try:
        wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side has gone already


class _WellFormed(HTTPResponse):
    """Refuses headers that are cut off or can't be read.

    urllib3 would log them, whatever they hold, and go on without those that follow.
    """

    def begin(self) -> None:
        super().begin()
        try:
            assert_header_parsing(self.msg)
        except HeaderParsingError:
            raise HTTPException("headers that can't be read") from None


class WatchedConnection(HTTPConnection):
    """Over http. Only used within an HttpCall, but may be kept for the next one."""

    response_class = _WellFormed

    def _new_conn(self) -> socket.socket:
        call = _under_way.get()
        try:
            wire = self._connected(call)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"{self.host}: timed out") from error
        except OSError as error:
            raise NewConnectionError(self, f"{self.host}: {error}") from error
        for option in self.socket_options or ():
            wire.setsockopt(*option)
        call.watch(wire)
        return wire

    def _connected(self, call: HttpCall) -> socket.socket:
        def seconds() -> float:
            longest = call.seconds_left() if self.timeout is None else self.timeout
            return min(longest, call.seconds_left())

        found = addresses(self._dns_host, self.port, seconds())
        problem: OSError = TimeoutError("timed out")
        for address in found if self.proxy else call.screen(self.host, found):
            if seconds() <= 0:
                break
            try:
                return socket.create_connection((str(address), self.port), seconds())
            except OSError as error:
                problem = error
        raise problem

    def request(self, *request: Any, **options: Any) -> None:
        call = _under_way.get()
        if self.sock is None:
            self.connect()
        else:
            call.watch(self.sock)
        super().request(*request, **options)
        call.was_sent = True


class WatchedTlsConnection(WatchedConnection, HTTPSConnection):
    """Over https."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = WatchedConnection  # pyright: ignore[reportAssignmentType] - a property's type


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = WatchedTlsConnection  # pyright: ignore[reportAssignmentType] - as above


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch_all_of(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:
        if proxy.lower().startswith("socks"):  # its connections could not be watched
            raise requests.exceptions.InvalidSchema("SOCKS proxies can't be used")
        manager = cast(urllib3.ProxyManager, super().proxy_manager_for(proxy, **kwargs))
        _watch_all_of(manager)
        return manager


def _watch_all_of(manager: urllib3.PoolManager) -> None:
    manager.pool_classes_by_scheme = dict[str, Any](http=_Pool, https=_TlsPool)


class HttpSession(requests.Session):
    """Connections that are kept between calls, for one thread. Each request within an HttpCall.

    Nothing of the owner's .netrc goes along, and no cookie. `trust_env`: whether proxies and
    certificates of the environment are used.
    """

    def __init__(self, user_agent: str, *, trust_env: bool):
        super().__init__()
        self.trust_env = trust_env
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers["User-Agent"] = user_agent
        self.mount("http://", _Adapter())
        self.mount("https://", _Adapter())

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """What is sent: the session's headers, and what the request says itself.

        There is nothing else here of what requests would look for and merge, which takes it longer
        than all the rest; and nothing of .netrc.
        """
        headers = CaseInsensitiveDict({**self.headers})
        headers.update(request.headers or {})
        prepared: Any = requests.PreparedRequest()  # whose steps have no types
        prepared.prepare_method(request.method)
        prepared.prepare_url(request.url, request.params)
        prepared.prepare_headers(headers)
        prepared.prepare_body(request.data, request.files, request.json)
        return prepared

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: to prepare a redirect, requests would read its body, however much that is."""
        return None

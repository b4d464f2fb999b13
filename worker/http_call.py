"""HTTP that ends in time, whatever the other side does.

A socket's own time-out starts anew at each byte: a peer that drips one now and then in a
handshake, a header or a body, or takes an upload as slowly, would hold its caller for ever. So
the connections of an HttpCall are cut at its deadline.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from threading import Lock
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import urllib3
from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    get_auth_from_url,
    get_environ_proxies,
    select_proxy,
)
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
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

_MOST_SITES = 64  # whose proxies are known at once

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


class HttpSession:
    """Connections that are kept between calls, for one thread. Each request within an HttpCall.

    Nothing of the owner's .netrc goes along, and no cookie; no redirect is followed, and nothing
    tried again. `trust_env`: whether proxies and certificates of the environment are used.
    Call `close` at the end.
    """

    def __init__(self, user_agent: str, *, trust_env: bool):
        self._headers = urllib3.make_headers(user_agent=user_agent, accept_encoding=True)
        self._certificates = _certificates(trust_env=trust_env)
        self._managers: dict[str, urllib3.PoolManager] = {}  # by the proxy; "" is none
        self._proxy_to = lru_cache(_MOST_SITES)(_proxy_to) if trust_env else _no_proxy

    def close(self) -> None:
        for manager in self._managers.values():
            manager.clear()

    def request(
        self,
        method: str,
        url: str,
        *,
        timeout: tuple[float, float],
        headers: Mapping[str, str],
        body: bytes | IO[bytes] | None = None,
    ) -> BaseHTTPResponse:
        """The answer, whatever its status; its body is not read yet, and `close` frees it.

        `timeout`: seconds to connect, which a piece of the body may take, too, and seconds of
        silence. A body that is a file needs its Content-Length. Raises urllib3's HTTPError.
        """
        parts = urlsplit(url)
        connect, read = timeout
        return self._manager(self._proxy_to(parts.scheme, parts.netloc)).urlopen(
            method,
            url,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=Timeout(connect=connect, read=read),
            headers={**self._headers, **headers},
            body=body,
        )

    def _manager(self, proxy: str) -> urllib3.PoolManager:
        if proxy not in self._managers:
            self._managers[proxy] = _watched_manager(proxy, self._certificates)
        return self._managers[proxy]


def _watched_manager(proxy: str, certificates: Mapping[str, str]) -> urllib3.PoolManager:
    """Raises ProxySchemeUnknown for SOCKS: its connections could not be watched."""
    options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", **certificates}
    if proxy:
        user, password = get_auth_from_url(proxy)
        login = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
        manager = urllib3.ProxyManager(proxy, proxy_headers=login, **options)
    else:
        manager = urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = dict[str, Any](http=_Pool, https=_TlsPool)
    return manager


def _no_proxy(_scheme: str, _netloc: str) -> str:
    return ""


def _proxy_to(scheme: str, netloc: str) -> str:
    """The owner's proxy to a site, by the variables of the environment; "" is none."""
    url = f"{scheme}://{netloc}/"
    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    if proxy and "://" not in proxy:
        return f"http://{proxy}"
    return proxy or ""


def _certificates(*, trust_env: bool) -> Mapping[str, str]:
    """Those that sites are known by: the owner's, by the variables that requests has, or certifi's.

    A file, or a folder.
    """
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if trust_env else ()
    named = (value for name in names if (value := os.environ.get(name)))
    path = next(named, DEFAULT_CA_BUNDLE_PATH)
    return {"ca_cert_dir" if os.path.isdir(path) else "ca_certs": path}

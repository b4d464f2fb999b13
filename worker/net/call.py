"""HTTP that ends in time, whatever the other side does.

libcurl, whose callbacks here only keep what comes: what is to be done about it is done between its
steps. So a caller has an answer piece by piece, and Ctrl-C ends a call at once.
"""

from __future__ import annotations

import io
import os
import re
import socket
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from ipaddress import ip_address
from threading import Lock, Thread, local
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin
from weakref import WeakSet

import pycurl
from multidict import CIMultiDict
from urllib3.util import Url

from worker.clock import elapsed_seconds
from worker.net.addresses import as_asked, parsed
from worker.net.messages import BadRedirect, HttpAnswer, HttpFailed, HttpRequest, NotTrusted, Screen
from worker.net.routes import certificates, no_proxy, proxy_to

_TIMED_OUT, _TOO_SLOW = "timed out", "too slow: it did not end within its time"
_MOST_SITES = 64  # whose proxies are known at once
_UNPACKED_BYTES = 256 * 1024  # at a time: a few packed bytes may be a thousand times as many
_STATUS_LINE = re.compile(rb"HTTP/\d(\.\d)?\s+\d{3}")
_NO_FIELD = re.compile(r"[\0\r\n]|[^\0-\xff]")  # what ends a field, or can't be in one
_LOOK_SECONDS = 0.5  # between two looks whether an answer is still wanted
_NAP_SECONDS = 0.01  # where curl waits for something that has no socket
_UNWANTED = "given up: nobody waits for it any more"
_CUT = "the connection was cut"
_NOT_HTTP = "headers that can't be read"
_NOT_UNPACKED = "an answer that can't be unpacked"
_CUT_OFF = "the answer was cut off"
_REASONS: Mapping[int, str] = MappingProxyType(
    {
        pycurl.E_COULDNT_RESOLVE_HOST: "there is no such host, or this machine is offline",
        pycurl.E_COULDNT_RESOLVE_PROXY: "there is no such host as the proxy",
        pycurl.E_OPERATION_TIMEDOUT: _TIMED_OUT,
        pycurl.E_SSL_CONNECT_ERROR: "TLS could not be agreed on",
        pycurl.E_GOT_NOTHING: _CUT,
        pycurl.E_SEND_ERROR: _CUT,
        pycurl.E_RECV_ERROR: _CUT,
        pycurl.E_SEND_FAIL_REWIND: _CUT,  # of a connection that was kept: we don't send twice
        pycurl.E_PARTIAL_FILE: _CUT_OFF,
        pycurl.E_FTP_WEIRD_SERVER_REPLY: _NOT_HTTP,
        pycurl.E_UNSUPPORTED_PROTOCOL: _NOT_HTTP,  # curl's word for what has no head at all
    }
)


class Http:
    """Asks sites, over connections that each thread keeps for itself. Any thread may use it.

    Nothing of the owner's .netrc goes along, and no cookie. Only `follow` follows redirects, and
    nothing is asked twice. `trust_env`: whether proxies and certificates of the environment are
    used; a proxy never is for this machine, which it can't reach. Call `close` at the end.
    """

    def __init__(self, user_agent: str, *, trust_env: bool):
        self._user_agent = user_agent
        self._certificates = certificates(trust_env=trust_env)
        self._proxy_to = lru_cache(_MOST_SITES)(proxy_to) if trust_env else no_proxy
        self._mine = local()
        self._lines = WeakSet[_Connection]()  # those of threads that have ended are gone
        self._lock = Lock()

    def close(self) -> None:
        """Close every connection. No call may be under way or follow."""
        with self._lock:
            for line in self._lines:
                line.close()

    @contextmanager
    def ask(self, request: HttpRequest) -> Generator[HttpAnswer]:
        """Raises HttpFailed, and what `screen` raises.

        A body comes unpacked, unless the request has an Accept-Encoding of its own.
        """
        try:
            target = parsed(request.url)
        except ValueError as error:
            raise HttpFailed("an address that can't be read") from error
        line = self._taken_connection()
        call = _Call(line, request, target)
        try:
            call.set_up(self._user_agent)
            call.set_up_route(self._proxy_to(target.scheme or "", target.netloc or ""))
            for option, value in self._certificates.items():
                line.easy.setopt(option, value)
            yield call.answer()
        finally:
            call.hang_up()
            if call.may_be_resolving:
                self._give_up(line)
            else:
                self._mine.line = line

    @contextmanager
    def follow(
        self, url: str, request_to: Callable[[str], HttpRequest], most_redirects: int
    ) -> Generator[tuple[str, HttpAnswer]]:
        """The address where redirects end, and its answer.

        `request_to` makes the request to each address on the way, the first one included, and
        raises where that one may not be asked. Raises BadRedirect, and as `ask` does.
        """
        for _ in range(most_redirects + 1):
            with self.ask(request_to(url)) as answer:
                if not answer.leads_to:
                    yield url, answer
                    return
                url = _joined(url, answer.leads_to)
        raise BadRedirect(f"more than {most_redirects} redirects")

    def _taken_connection(self) -> _Connection:
        line: _Connection | None = self._mine.__dict__.pop("line", None)
        if line is None:
            line = _Connection()
            with self._lock:
                self._lines.add(line)
        return line

    def _give_up(self, line: _Connection) -> None:
        """To close it waits for the system's resolver, which nothing can stop."""
        with self._lock:
            self._lines.discard(line)
        Thread(target=line.close, name="resolver", daemon=True).start()


class _Connection:
    """One thread's connections."""

    def __init__(self) -> None:
        self.easy = pycurl.Curl()
        self.multi = pycurl.CurlMulti()

    def close(self) -> None:
        self.easy.close()
        self.multi.close()


class _Call:
    """A request on its way, and what came of its answer so far."""

    def __init__(self, line: _Connection, request: HttpRequest, target: Url):
        self._easy, self._multi = line.easy, line.multi
        self._request = request
        self._target = target
        self._lines: list[bytes] = []
        self._pieces: list[bytes] = []
        self._is_added = False
        self._is_over = False
        self._has_ended = False
        self._problem: Exception | None = None
        self._refusal: ValueError | None = None
        self._opened: list[socket.socket] = []  # of which curl has twins
        self._quiet_since = elapsed_seconds() + request.connect_seconds

    def set_up(self, user_agent: str) -> None:
        request, easy = self._request, self._easy
        easy.reset()
        easy.setopt(pycurl.NOSIGNAL, True)
        easy.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        easy.setopt(pycurl.DNS_CACHE_TIMEOUT, 0)  # a network that changes is known at once
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        easy.setopt(pycurl.URL, self._target.url)
        easy.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(request.connect_seconds * 1000)))
        easy.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        easy.setopt(pycurl.WRITEFUNCTION, self._pieces.append)
        ours = {"User-Agent": user_agent, "Accept": "", "Accept-Encoding": "gzip", "Expect": ""}
        easy.setopt(pycurl.HTTPHEADER, _field_lines({**ours, **request.headers}))
        if request.body is not None:
            # Without a way to rewind: curl would send it again where a kept connection has died.
            easy.setopt(pycurl.UPLOAD, True)
            easy.setopt(pycurl.INFILESIZE_LARGE, len(request.body))
            easy.setopt(pycurl.READFUNCTION, io.BytesIO(request.body).read)
        easy.setopt(pycurl.CUSTOMREQUEST, request.method)

    def set_up_route(self, proxy: str) -> None:
        self._easy.setopt(pycurl.PROXY, proxy)  # "" has curl not look for one
        # Nor for exceptions, which it reads in another way: it would connect where nobody screens.
        self._easy.setopt(pycurl.NOPROXY, "")
        if self._request.screen is not None and not proxy:
            self._easy.setopt(pycurl.OPENSOCKETFUNCTION, partial(self._open, self._request.screen))

    @property
    def may_be_resolving(self) -> bool:
        """Whether it was left before the host's addresses were known."""
        is_under_way = self._is_added and not (self._is_over or self._has_ended)
        return is_under_way and not self._easy.getinfo(pycurl.NAMELOOKUP_TIME_T)

    def answer(self) -> HttpAnswer:
        self._multi.add_handle(self._easy)
        self._is_added = True
        while not self._has_head():
            self._step()
        heads = [index for index, line in enumerate(self._lines) if _STATUS_LINE.match(line)]
        fields = [line.decode("latin-1").rstrip() for line in self._lines[max(heads, default=0) :]]
        if not heads or "" not in fields:
            raise self._failed(_NOT_HTTP)  # or it ends in the middle of them
        headers = _headers(fields[1:])
        chunks = self._body(headers.get("Content-Encoding", ""))
        return HttpAnswer(self._easy.getinfo(pycurl.RESPONSE_CODE), headers, chunks)

    def hang_up(self) -> None:
        """A connection whose answer was read to its end is kept."""
        if self._is_added:
            self._multi.remove_handle(self._easy)
        for opened in self._opened:
            opened.close()

    def _has_head(self) -> bool:
        """Whether it is whole, and not one of those that only say that another will follow."""
        if self._pieces or self._is_over:
            return True
        is_whole = bool(self._lines) and not self._lines[-1].strip()
        return is_whole and self._easy.getinfo(pycurl.RESPONSE_CODE) >= 200

    def _body(self, encoding: str) -> Iterator[bytes]:
        """Unpacked, where we asked for it packed."""
        packed = encoding.lower()
        if "Accept-Encoding" in self._request.headers or packed in ("", "identity"):
            return self._chunks()
        if packed not in ("gzip", "x-gzip"):
            raise self._failed(_NOT_UNPACKED)
        return self._unpacked()

    def _unpacked(self) -> Generator[bytes]:
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)  # zlib's manual: with gzip's header
        has_begun = False
        for chunk in self._chunks():
            has_begun = True
            if unpacker.eof:  # it would keep what follows, without a bound
                raise self._failed(_NOT_UNPACKED)
            try:
                yield from _pieces_of(unpacker, chunk)
            except zlib.error as error:
                raise self._failed(_NOT_UNPACKED) from error
        if has_begun and not unpacker.eof:
            raise self._failed(_CUT_OFF)

    def _chunks(self) -> Generator[bytes]:
        while self._pieces or not self._is_over:
            if self._pieces:
                chunk = b"".join(self._pieces)
                self._pieces.clear()
                yield chunk
                self._was_heard()  # whoever reads may have taken long
            else:
                self._step()

    def _step(self) -> None:
        """Have curl do what it can at once; wait where that was nothing."""
        if self._problem is not None:
            raise self._problem
        if elapsed_seconds() >= self._request.until:
            raise self._overdue()
        if self._request.unwanted is not None and self._request.unwanted.is_set():
            raise self._failed(_UNWANTED)
        _, running = self._multi.perform()
        if not running:
            self._end()
        elif self._pieces:
            self._was_heard()
        else:
            self._wait()

    def _end(self) -> None:
        """What came before a failure is still worth having."""
        _, _, failed = self._multi.info_read()
        self._is_over = not failed
        for _, code, _ in failed:
            self._has_ended = code != pycurl.E_OPERATION_TIMEDOUT
            self._problem = self._failure(code)

    def _was_heard(self) -> None:
        self._quiet_since = max(self._quiet_since, elapsed_seconds())

    def _wait(self) -> None:
        """For the network. Raises HttpFailed where it has been silent for too long."""
        now = elapsed_seconds()
        quiet_until = self._quiet_since + self._request.silence_seconds
        if now >= quiet_until:
            raise self._failed(_TIMED_OUT)
        seconds = max(0.0, min(self._request.until, quiet_until) - now)
        if self._request.unwanted is not None:
            seconds = min(seconds, _LOOK_SECONDS)
        timer_ms = self._multi.timeout()  # of curl itself; -1 for none
        ready = self._multi.select(seconds if timer_ms < 0 else min(seconds, timer_ms / 1000))
        if ready > 0:
            self._quiet_since = elapsed_seconds()
        elif ready < 0:
            time.sleep(min(seconds, _NAP_SECONDS))

    def _failure(self, code: int) -> Exception:
        """In our own words: curl's may have an address in them, or a proxy's password."""
        if self._refusal is not None and code == pycurl.E_COULDNT_CONNECT:
            return self._refusal
        if code == pycurl.E_OPERATION_TIMEDOUT and elapsed_seconds() >= self._request.until:
            return self._overdue()
        if code == pycurl.E_PEER_FAILED_VERIFICATION:
            return NotTrusted("no valid certificate")
        number = int(self._easy.getinfo(pycurl.OS_ERRNO))
        if code == pycurl.E_COULDNT_CONNECT and number:
            return self._failed(os.strerror(number).lower())
        return self._failed(_REASONS.get(code, f"error {code} of libcurl"))

    def _overdue(self) -> HttpFailed:
        has_begun = bool(self._easy.getinfo(pycurl.STARTTRANSFER_TIME_T))
        return self._failed(_TOO_SLOW if has_begun else _TIMED_OUT)

    def _failed(self, reason: str) -> HttpFailed:
        sent_bytes = self._easy.getinfo(pycurl.SIZE_UPLOAD_T)
        is_head_sent = self._easy.getinfo(pycurl.REQUEST_SIZE) > 0
        was_sent = is_head_sent and sent_bytes >= len(self._request.body or b"")
        return HttpFailed(reason, was_sent=was_sent)

    def _open(self, screen: Screen, _: int, where: Any) -> socket.socket | int:
        """curl's next connection. It goes on to the host's next address where that is refused."""
        host = (self._target.host or "").strip("[]")
        try:
            screen(host, ip_address(where.addr[0]))
            self._opened.append(socket.socket(where.family, where.socktype, where.protocol))
            return self._opened[-1]
        except ValueError as error:
            self._refusal = error
        except OSError:  # such as too many open files
            pass
        return pycurl.SOCKET_BAD


def _pieces_of(unpacker: zlib._Decompress, chunk: bytes) -> Generator[bytes]:
    is_all_out = False
    while not is_all_out:
        piece = unpacker.decompress(chunk, _UNPACKED_BYTES)
        chunk = unpacker.unconsumed_tail
        is_all_out = not chunk and len(piece) < _UNPACKED_BYTES
        yield piece


def _joined(base: str, location: str) -> str:
    try:
        return as_asked(urljoin(base, location))
    except ValueError as error:
        raise BadRedirect("leads to an address that can't be read") from error


def _field_lines(headers: Mapping[str, str]) -> list[bytes]:
    if any(_NO_FIELD.search(value) for value in headers.values()):
        raise HttpFailed("a header that can't be sent")
    return [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]


def _headers(fields: Iterable[str]) -> Mapping[str, str]:
    split = (field.partition(":") for field in fields)
    return CIMultiDict((name, value.strip()) for name, colon, value in split if colon)

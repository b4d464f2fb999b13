"""What is asked of a site, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Event

from worker.net.addresses import Address

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Screen = Callable[[str, Address], None]
"""Raises ValueError where a host may not be connected to at an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What is asked, and how long that may take.

    `until` is of elapsed_seconds(). Seconds to connect, names and TLS included, and of silence.
    `screen` is asked about each address but those of the owner's proxy. Once `unwanted` is set, the
    call fails within half a second.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str]
    body: bytes | None = None
    until: float
    connect_seconds: float
    silence_seconds: float
    screen: Screen | None = None
    unwanted: Event | None = None


class HttpFailed(Exception):
    """There is no whole answer. The message has words for an owner, and nothing of the address."""

    def __init__(self, message: str, *, was_sent: bool = False):
        super().__init__(message)
        self.was_sent = was_sent
        """Whether a whole request went out. Before, nobody can have acted on it."""


class NotTrusted(HttpFailed):
    """A site has no certificate that it could be known by."""


class BadRedirect(ValueError):
    """Redirects have no end, or lead to what is no address."""


class AnswerTooLong(ValueError):
    """A body has more bytes than its reader has room for."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, whatever its status. The names of headers have no case."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    """The body. Raises HttpFailed where it does not end as it should, or in time."""

    @property
    def leads_to(self) -> str:
        """Where a redirect leads, as it is written; "" of any other answer."""
        return self.headers.get("Location", "") if self.status in _REDIRECTS else ""

    def read(self, most_bytes: int) -> bytes:
        """The body as a whole. Raises AnswerTooLong, and HttpFailed."""
        body = bytearray()
        for chunk in self.chunks:
            body += chunk
            if len(body) > most_bytes:
                raise AnswerTooLong
        return bytes(body)

    def beginning(self, most_bytes: int) -> bytes:
        """At most as many bytes of the body, of one that nobody needs whole. Raises HttpFailed."""
        body = bytearray()
        for chunk in self.chunks:
            body += chunk
            if len(body) >= most_bytes:
                break
        return bytes(body[:most_bytes])

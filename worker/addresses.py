"""Which addresses of the network a stranger's URL may lead to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from concurrent.futures import Future
from enum import Enum, auto
from functools import lru_cache
from threading import Thread
from types import MappingProxyType
from urllib.parse import urlsplit

from urllib3.util import Url, parse_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits


_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_LOOK_UP_SECONDS = 5.0
_MOST_URLS = 64  # whose parts are known at once


class Reach(Enum):
    """Who is behind an address."""

    PUBLIC = auto()
    PRIVATE = auto()  # the owner's own network, and what providers share (RFC 1918, 4193, 6598)
    LOOPBACK = auto()
    LINK_LOCAL = auto()  # clouds keep their machines' secrets there
    NOBODY = auto()  # multicast, unspecified, reserved


# What a horde at such an address may send its workers to.
_NEIGHBOURS: Mapping[Reach, frozenset[Reach]] = MappingProxyType(
    {
        Reach.PUBLIC: frozenset({Reach.PUBLIC}),
        Reach.PRIVATE: frozenset({Reach.PUBLIC, Reach.PRIVATE}),
        Reach.LOOPBACK: frozenset({Reach.PUBLIC, Reach.PRIVATE, Reach.LOOPBACK}),
        Reach.LINK_LOCAL: frozenset({Reach.PUBLIC, Reach.LINK_LOCAL}),
        Reach.NOBODY: frozenset({Reach.PUBLIC}),
    }
)


def reach(address: Address) -> Reach:
    """Of an IPv6 address that carries an IPv4 one, the reach of that."""
    address = _carried(address)
    if address.is_loopback:
        return Reach.LOOPBACK
    if address.is_link_local:
        return Reach.LINK_LOCAL
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return Reach.NOBODY
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE


def may_lead_to(address: Address, horde: frozenset[Reach]) -> bool:
    """Whether a horde that is reached at `horde` may send a worker to `address`."""
    allowed = frozenset({Reach.PUBLIC}).union(*(_NEIGHBOURS[near] for near in horde))
    return reach(address) in allowed


class NoBusiness(ValueError):
    """A horde sends its worker to where it may not."""


class Neighbourhood:
    """Where the horde at `horde_url` may send its workers."""

    def __init__(self, horde_url: str):
        self._host = urlsplit(horde_url).hostname or ""

    def permit(self, host: str, address: Address) -> None:
        """Raises NoBusiness where they may not be connected to."""
        near = reach(address)
        if near is not Reach.PUBLIC and not may_lead_to(address, self._reach()):
            told = f"{host}: a {near.name.lower()} address, where this horde has no business"
            raise NoBusiness(told)

    def _reach(self) -> frozenset[Reach]:
        try:
            return frozenset(map(reach, addresses(self._host, 0, _LOOK_UP_SECONDS)))
        except OSError:
            return frozenset()


def is_this_machine(url: str) -> bool:
    """Whether an address says by its very name that it leads to this machine."""
    return urlsplit(url).hostname in _THIS_MACHINE


@lru_cache(_MOST_URLS)
def parsed(url: str) -> Url:
    """The parts of an address, for all that read one. Raises ValueError where it can't be read."""
    return parse_url(url)


def as_asked(url: str) -> str:
    """An address as it is asked for, so that every reader finds the same host in it.

    Raises ValueError where it can't be read.
    """
    return parsed(url).url


def addresses(host: str, port: int, seconds: float) -> tuple[Address, ...]:
    """What the system's resolver answers, each once, in its order. Raises OSError.

    A TimeoutError after `seconds`, though the resolver can't be stopped: its thread ends later.
    """
    if found := written_out(host):
        return found
    answer: Future[tuple[Address, ...]] = Future()

    def ask() -> None:
        try:
            answer.set_result(_resolved(host, port))
        except OSError as error:
            answer.set_exception(error)

    Thread(target=ask, name="resolver", daemon=True).start()
    return answer.result(seconds)


def written_out(host: str) -> tuple[Address, ...]:
    """The address that a host is written as, in any way that the resolver reads; none of a name."""
    try:
        return _resolved(host, 0, socket.AI_NUMERICHOST)
    except OSError:
        return ()


def _resolved(host: str, port: int, flags: int = 0) -> tuple[Address, ...]:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        return tuple(dict.fromkeys(ipaddress.ip_address(row[4][0]) for row in rows))
    except ValueError as error:  # letters or a length that no name has
        raise socket.gaierror(f"no such host: {error}") from error


def _carried(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

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

# Of these, the last 32 bits are an IPv4 address: translated (RFC 6052, RFC 2765).
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96")))
_ISATAP = (0x00005EFE, 0x02005EFE)  # bits 32 to 63 from the right (RFC 5214); then an IPv4 address
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out of IPv6
# No host of the internet has one of these, although some Pythons call some of them global: they are
# for protocols (RFC 6890, also Teredo), relays of 6to4 (RFC 7526), documentation (RFC 9637).
_NOBODYS = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "2001::/23", "192.88.99.0/24", "3fff::/20"))
)
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_LOOK_UP_SECONDS = 5.0
_MOST_URLS = 64  # whose parts are known at once
_LONGEST_URL, _LONGEST_HOST = 8192, 255  # characters


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
    """An address is public by being global, and so is whatever it carries.

    Of an IPv6 address that leads to an IPv4 one, that one counts.
    """
    found = map(_own_reach, _taken_apart(address))
    return next((near for near in found if near is not Reach.PUBLIC), Reach.PUBLIC)


def _own_reach(address: Address) -> Reach:
    if address.is_loopback:
        return Reach.LOOPBACK
    if address.is_link_local:
        return Reach.LINK_LOCAL
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return Reach.NOBODY
    if any(address in network for network in _NOBODYS):
        return Reach.NOBODY
    is_given_out = address.version == 4 or address in _UNICAST
    return Reach.PUBLIC if address.is_global and is_given_out else Reach.PRIVATE


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
    """The parts of an address, for all that read one. Raises ValueError where it can't be read.

    Its host is fit to be shown.
    """
    if len(url) > _LONGEST_URL:
        raise ValueError(f"an address of {len(url)} characters: at most {_LONGEST_URL} are read")
    parts = parse_url(url)
    if len(parts.host or "") > _LONGEST_HOST or not (parts.host or "").isprintable():
        raise ValueError("an address with a host that none is called")
    return parts


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


def _taken_apart(address: Address) -> tuple[Address, ...]:
    """What it leads to: itself, or the IPv4 address that it stands for; and one of a tunnel."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    is_translated = any(address in network for network in _TRANSLATED)
    stands_for = last if is_translated else address.ipv4_mapped or address.sixtofour or address
    is_tunnel = (int(address) >> 32 & 0xFFFFFFFF) in _ISATAP
    return (stands_for, last) if is_tunnel else (stands_for,)

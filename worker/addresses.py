"""Which addresses of the network a stranger's URL may lead to."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits


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


def addresses(host: str, port: int) -> tuple[Address, ...]:
    """What the system's resolver answers, each once, in its order. Raises OSError."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # letters or a length that no name has
        raise socket.gaierror(f"no such host: {error}") from error
    return tuple(dict.fromkeys(ipaddress.ip_address(row[4][0]) for row in rows))


def _carried(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

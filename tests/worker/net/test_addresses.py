from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.net.addresses import Reach, addresses, may_lead_to, parsed, reach


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.16.0.1", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.8.8.8", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("169.254.169.254", Reach.LINK_LOCAL),
        ("fe80::1%1", Reach.LINK_LOCAL),
        ("0.0.0.0", Reach.NOBODY),
        ("::", Reach.NOBODY),
        ("224.0.0.1", Reach.NOBODY),
        ("255.255.255.255", Reach.NOBODY),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::ffff:169.254.169.254", Reach.LINK_LOCAL),
        ("64:ff9b::a00:1", Reach.PRIVATE),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("2002:5db8:d822::1", Reach.PUBLIC),  # 6to4 of a public address
        ("64:ff9b::5db8:d822", Reach.PUBLIC),  # NAT64 of one
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("::ffff:5db8:d822", Reach.PUBLIC),
        ("::ffff:0:7f00:1", Reach.LOOPBACK),  # SIIT
        ("::ffff:0:a9fe:a9fe", Reach.LINK_LOCAL),
        ("::7f00:1", Reach.NOBODY),  # IPv4-compatible
        ("64:ff9b:1::a00:1", Reach.NOBODY),  # NAT64 within a network
        ("64:ff9b:1:7f00:0:100::", Reach.NOBODY),
        ("2606:4700::5efe:a00:1", Reach.PRIVATE),  # ISATAP
        ("2606:4700::200:5efe:7f00:1", Reach.LOOPBACK),
        ("2606:4700::5efe:5db8:d822", Reach.PUBLIC),
        ("2002:5db8:d822::5efe:a9fe:a9fe", Reach.LINK_LOCAL),
        ("fe80::5efe:5db8:d822", Reach.LINK_LOCAL),
        ("2001:0:5db8:d822::80ff:fffe", Reach.NOBODY),  # Teredo
        ("2001:0:5db8:d822::a247:27dd", Reach.NOBODY),
        ("fec0::1", Reach.PRIVATE),  # site-local
        ("feff::1", Reach.PRIVATE),
        ("192.88.99.1", Reach.NOBODY),  # relays of 6to4
        ("::ffff:192.88.99.1", Reach.NOBODY),
        ("192.0.2.1", Reach.PRIVATE),  # for documentation
        ("198.18.0.1", Reach.PRIVATE),
        ("192.0.0.8", Reach.NOBODY),
        ("240.0.0.1", Reach.NOBODY),
        ("239.255.255.250", Reach.NOBODY),
        ("2001:db8::1", Reach.PRIVATE),
        ("3fff::1", Reach.NOBODY),
        ("100::1", Reach.NOBODY),
        ("4000::1", Reach.NOBODY),
        ("5f00::1", Reach.NOBODY),
        ("ff02::1", Reach.NOBODY),
        ("fd00:ec2::254", Reach.PRIVATE),
    ],
)
def test_who_is_behind_an_address(address: str, expected: Reach):
    assert reach(ip_address(address)) is expected


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(
    st.integers(0, 2**128 - 1) | st.integers(0, 2**96 - 1).map(lambda rest: 0x2002 << 112 | rest)
)
def test_what_is_public_is_global_and_carries_nothing_that_is_not(number: int):
    address = IPv6Address(number)
    if reach(address) is not Reach.PUBLIC:
        return
    carried = address.sixtofour or address.ipv4_mapped
    last = IPv4Address(number & 0xFFFFFFFF)
    is_translated = address in IPv6Network("64:ff9b::/96")
    leads_to = carried or (last if is_translated else address)
    assert leads_to.is_global
    assert carried or is_translated or number >> 125 == 1


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_an_address_has_the_reach_of_what_it_carries(number: int):
    near = reach(IPv4Address(number))
    for carrier in (0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96):
        assert reach(IPv6Address(carrier | number)) is near
    assert reach(IPv6Address(0x2002 << 112 | number << 80)) is near
    assert near is Reach.PUBLIC or reach(IPv6Address(0x2606 << 112 | 0x5EFE << 32 | number)) is near


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.text(max_size=40) | st.from_regex(r"https?://[^/]{0,20}(:[0-9]{1,6})?/[^ ]{0,10}"))
def test_any_address_is_read_or_refused(text: str):
    with suppress(ValueError):
        host = parsed(text).host or ""
        assert host.isprintable()
        assert len(host) <= 255


def allowed(horde: Reach) -> set[Reach]:
    ones = ("93.184.216.34", "10.0.0.1", "127.0.0.1", "169.254.169.254", "0.0.0.0")
    found = map(ip_address, ones)
    return {reach(one) for one in found if may_lead_to(one, frozenset({horde}))}


def test_a_horde_may_lead_only_to_where_it_is_itself():
    assert allowed(Reach.PUBLIC) == {Reach.PUBLIC}
    assert allowed(Reach.PRIVATE) == {Reach.PUBLIC, Reach.PRIVATE}
    assert allowed(Reach.LOOPBACK) == {Reach.PUBLIC, Reach.PRIVATE, Reach.LOOPBACK}


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost"])
def test_a_host_is_judged_by_what_it_resolves_to(host: str):
    assert {reach(one) for one in addresses(host, 80, 5)} == {Reach.LOOPBACK}


@pytest.mark.parametrize("host", ["a" * 300, "no.such.host.invalid", "\udc80"])
def test_a_host_that_can_not_be_is_not_found(host: str):
    with pytest.raises(OSError):  # noqa: PT011 - the resolver's own words
        addresses(host, 80, 5)


def test_an_address_that_is_written_out_asks_nobody():
    for host in ("127.0.0.1", "2130706433", "::1"):
        assert [reach(one) for one in addresses(host, 80, seconds=0)] == [Reach.LOOPBACK]

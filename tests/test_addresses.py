from __future__ import annotations

from ipaddress import ip_address

import pytest

from worker.addresses import Reach, addresses, may_lead_to, reach


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
    ],
)
def test_who_is_behind_an_address(address: str, expected: Reach):
    assert reach(ip_address(address)) is expected


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

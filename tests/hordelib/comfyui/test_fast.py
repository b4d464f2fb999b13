"""Switches that make pictures faster: which a machine can do, told without torch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hordelib.comfyui.fast import ALLOCATOR, SWITCHES, lack, set_allocator
from worker.cli.check_device import switches
from worker.devices import Card, TorchProbe
from worker.setup.finding import Verdict

ADA = Card("NVIDIA GeForce RTX 4090", "580.00", 24 << 30, 23 << 30, (8, 9))


@pytest.mark.parametrize(
    ("name", "capability", "torch", "reason"),
    [
        ("fp16_accumulation", None, "2.14.1", "it needs an NVIDIA card"),
        ("fp16_accumulation", (8, 6), "2.14.1+cu130", ""),
        ("fp16_accumulation", (8, 6), "2.6.0", "it needs torch 2.7, and 2.6.0 is installed"),
        (
            "fp8_matrix_mult",
            (8, 6),
            "2.14.1",
            "it needs a card of compute capability 8.9, and this one has 8.6",
        ),
        (
            "sage_attention",
            (8, 9),
            "2.14.1",
            "it needs the package sageattention, which is not installed",
        ),
        ("autotune", (7, 5), "2.5.1", ""),
    ],
)
def test_what_is_lacking_is_one_clear_line(
    name: str, capability: tuple[int, int] | None, torch: str, reason: str
):
    assert lack(name, capability, torch) == reason


def test_check_names_each_switch_and_the_remedy_for_one_that_is_left_out():
    probe = TorchProbe("2.14.1", "13.0", ("sm_89",), ADA, "")
    one, other = switches(["fp16_accumulation", "sage_attention"], ADA, probe)
    assert (one.verdict, one.detail) == (
        Verdict.ok,
        "fp16_accumulation is on; pictures differ a little",
    )
    assert other.verdict is Verdict.warning
    assert other.remedy == (
        ".venv/bin/pip install sageattention, or take sage_attention out of fast"
    )
    (old,) = switches(["fp8_matrix_mult"], Card("GTX 1660", "580.00", 6 << 30, 0, (7, 5)), probe)
    assert old.remedy == "take fp8_matrix_mult out of fast"


def test_torchs_allocator_is_told_unless_the_owner_has_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hordelib.comfyui.fast.WSL_NODE", tmp_path / "none")
    fresh: dict[str, str] = {}
    set_allocator(["autotune", "expandable_segments"], fresh)
    assert fresh == {ALLOCATOR: "expandable_segments:True"}
    owners = {ALLOCATOR: "max_split_size_mb:128"}
    set_allocator(["expandable_segments"], owners)
    assert owners == {ALLOCATOR: "max_split_size_mb:128"}
    monkeypatch.setattr("hordelib.comfyui.fast.WSL_NODE", tmp_path)
    in_wsl: dict[str, str] = {}
    set_allocator(["expandable_segments"], in_wsl)
    assert not in_wsl
    assert lack("expandable_segments", (8, 9), "2.14.1")


@pytest.mark.usefixtures("engine")
def test_every_switch_is_one_that_comfyui_knows():
    known: Any = import_module("comfy.cli_args")
    words = {name for name, switch in SWITCHES.items() if switch.is_word}
    assert words == {feature.value for feature in known.PerformanceFeature}
    assert all(hasattr(known.args, each.argument) for each in SWITCHES.values() if each.argument)

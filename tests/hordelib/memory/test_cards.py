"""Which card is meant, and how much of it is free, where NVML, CUDA's variables and MIG differ."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import torch

from hordelib.comfyui.device import Device, card_free_bytes, hold_to, take_reserve, whole_card
from hordelib.memory import cards
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.cards import card_memory, first_visible
from hordelib.memory.readings import Memory
from tests.support.owner import PROJECT
from tests.support.simulated_nvml import MIB, SimulatedCard, SimulatedNvml
from worker.devices import Card, engine_device

PART = SimulatedCard("A100 MIG 1g.5gb", "MIG-7", memory_bytes=4864 * MIB, free_bytes=4800 * MIB)
CARDS = [
    SimulatedCard("first", "GPU-1a"),
    SimulatedCard("second", "GPU-2b", memory_bytes=24576 * MIB, free_bytes=20000 * MIB),
    SimulatedCard("divided", "GPU-3c", memory_bytes=40960 * MIB, parts=(PART,)),
]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Generator[SimulatedNvml]:
    simulated = SimulatedNvml(CARDS)
    simulated.install(monkeypatch)
    cards._card_of.cache_clear()
    yield simulated
    cards._card_of.cache_clear()


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "first"),
        ("1", "second"),
        ("1,0", "second"),
        ("GPU-2", "second"),
        ("2", "A100 MIG 1g.5gb"),
        ("MIG-7", "A100 MIG 1g.5gb"),
        ("", None),
        ("-1", None),
        ("7", None),
        ("GPU-9", None),
    ],
)
def test_the_first_card_is_the_one_that_cuda_counts_as_first(
    nvml: SimulatedNvml, visible: str | None, name: str | None
):
    found = first_visible(visible)
    assert (found and found.name) == name


def test_the_memory_of_a_part_of_a_card_is_its_own(nvml: SimulatedNvml):
    """CUDA tells the UUID of the part, without saying that it is one."""
    assert card_memory("2b") == Memory(24576 * MIB, 20000 * MIB)
    assert card_memory("7") == Memory(4864 * MIB, 4800 * MIB)


def test_the_driver_is_opened_once_and_anew_after_it_has_failed(nvml: SimulatedNvml):
    assert card_memory("1a").total_bytes
    nvml.error = pynvml.NVMLError(15)  # the card is lost
    with pytest.raises(pynvml.NVMLError):
        card_memory("1a")
    nvml.error = None
    assert [card_memory("1a").free_bytes for _ in range(5)] == [6000 * MIB] * 5
    assert nvml.opened == 2


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch on a card of 8 GiB, of which it has 3: 1 in use, 1.5 whole, and 0.5 in splinters."""
    told = {
        "get_device_properties": SimpleNamespace(uuid="1a"),
        "mem_get_info": (5000 * MIB, 8192 * MIB),
        "memory_reserved": 3072 * MIB,
        "memory_allocated": 1024 * MIB,
        "memory_stats": {"inactive_split_bytes.all.current": 512 * MIB},
    }
    for name, answer in told.items():
        monkeypatch.setattr(torch.cuda, name, _answering(answer))


def _answering(answer: object) -> Callable[[str], object]:
    return lambda _device: answer


def test_cuda_tells_the_memory_where_there_is_no_nvml(nvml: SimulatedNvml, cuda: None):
    assert whole_card("cuda:0") == Memory(8192 * MIB, 6000 * MIB)
    nvml.error = pynvml.NVMLError_LibraryNotFound()
    cards._card_of.cache_clear()
    assert whole_card("cuda:0") == Memory(8192 * MIB, 5000 * MIB)


def test_what_torch_has_in_splinters_is_not_free(nvml: SimulatedNvml, cuda: None):
    assert card_free_bytes("cuda:0") == (6000 + 1536) * MIB


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Of the card that torch was told to take at most, one after the other, from all of it on."""
    told = [1.0]

    def set_share(share: float, _device: str = "") -> None:
        told.append(share)

    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_share)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: told[-1])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr("hordelib.comfyui.device.WSL_NODE", tmp_path / "none")
    return told


BUDGET = MemoryBudget(lambda: 4096 * MIB, 1024 * MIB)
HELD = (3072 + 6000 - 1024) / 8192  # what torch has, and what is free beside the reserve


def test_torch_is_held_to_the_budget_until_a_single_picture_needs_the_reserve(
    nvml: SimulatedNvml, cuda: None, shares: list[float]
):
    hold_to(Device("cuda:0"), BUDGET)
    assert shares[-1] == HELD
    assert take_reserve()
    assert shares[-1] == 1.0
    assert not take_reserve(), "it has it already"


def test_where_the_driver_spills_torch_fails_at_the_end_of_the_budget(
    nvml: SimulatedNvml,
    cuda: None,
    shares: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("hordelib.comfyui.device.WSL_NODE", tmp_path)
    hold_to(Device("cuda:0"), BUDGET)
    assert not take_reserve()
    assert shares[-1] == HELD


OWNERS = {
    "hordelib/comfyui/device.py",
    "hordelib/comfyui/torch_probe.py",
    "hordelib/memory/cards.py",
    "worker/devices.py",
}


def test_no_module_but_those_that_own_the_card_knows_of_cuda():
    """They ask for a device, a budget, a clock; errors' and builds' words are tables of text."""
    knowing = {
        str(path.relative_to(PROJECT))
        for package in ("hordelib", "worker")
        for path in (PROJECT / package).rglob("*.py")
        if any(map(_names_cuda, ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert knowing == OWNERS


def _names_cuda(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(ast.Name("torch"), "cuda"):
            return True
        case ast.Constant(str(text)):
            return re.fullmatch(r"cuda(:\d+)?", text) is not None
        case _:
            return isinstance(node, ast.Import) and node.names[0].name == "pynvml"


def test_the_engine_is_told_of_a_card_that_torch_may_not_be_able_to_use():
    card = Card("NVIDIA GeForce RTX 3060", "580.00", 12 << 30, 11 << 30)
    assert (engine_device(card), engine_device(None)) == ("cuda:0", "auto")

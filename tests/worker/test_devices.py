"""The card as the worker knows it, and what `check` says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pynvml
import pytest
import torch

from tests.support.simulated_nvml import MIB, SimulatedCard, SimulatedNvml
from worker import devices
from worker.cli.check_device import device, has_kernels, on_card
from worker.config.keys import BridgeConfig
from worker.devices import Card, TorchProbe, ask_torch, first_card
from worker.models.offer import compute_memory
from worker.setup.finding import Verdict

TURING_UP = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
CARD = Card("GeForce RTX 3060", "570.86", 12288 * MIB, 11000 * MIB, (8, 6))
PASCAL = Card("GeForce GTX 1080", "570.86", 8192 * MIB, 8000 * MIB, (6, 1))
CONFIG = BridgeConfig.model_validate({"api_key": "k", "dreamer_name": "w"})


def probed(card: Card | None = CARD, error: str = "", version: str = "2.14.1+cu130") -> TorchProbe:
    return TorchProbe(version, "13.0", TURING_UP, card, error)


@pytest.fixture
def stand_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torch whose card has 6 GiB, in the place of the real one in child processes."""
    module = tmp_path / "torch.py"
    module.write_text(
        """
from types import SimpleNamespace as Names
__version__ = "2.7.1+cu126"
version = Names(cuda="12.6")
_C = Names(_cuda_getArchFlags=lambda: "sm_50 sm_60 sm_86")
class cuda:
    device_count = staticmethod(lambda: 1)
    mem_get_info = staticmethod(lambda _i: (5 << 30, 6 << 30))
    get_device_properties = staticmethod(lambda _i: Names(name="RTX 2060", major=7, minor=5))
def ones(*_shape, device):
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
"""
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return module


def test_a_container_with_cuda_and_without_nvml_has_a_card(
    stand_in_torch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It was taken for a machine without one, so that main memory was offered."""
    SimulatedNvml([], error=pynvml.NVMLError_LibraryNotFound()).install(monkeypatch)
    monkeypatch.setattr(devices, "DEVICE_NODES", (tmp_path / "none",))
    devices._card_of_torch.cache_clear()
    assert first_card() is None
    monkeypatch.setattr(devices, "DEVICE_NODES", (tmp_path,))
    assert first_card() == Card("RTX 2060", "", 6 << 30, 5 << 30, (7, 5))
    memory = compute_memory(CONFIG)
    devices._card_of_torch.cache_clear()
    assert (memory.setting, memory.total_bytes) == ("vram_to_leave_free", 6 << 30)


def test_the_offer_follows_the_card_that_the_engine_will_use(monkeypatch: pytest.MonkeyPatch):
    cards = [SimulatedCard("a", "GPU-1"), SimulatedCard("b", "GPU-2", memory_bytes=24576 * MIB)]
    SimulatedNvml(cards).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert compute_memory(CONFIG).total_bytes == 24576 * MIB
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert first_card() is None


def test_torch_is_asked_in_a_process_of_its_own(stand_in_torch: Path):
    probe = ask_torch()
    assert (probe.version, probe.cuda) == ("2.7.1+cu126", "12.6")
    assert probe.kernels == ("sm_50", "sm_60", "sm_86")
    assert "no kernel image" in probe.error


def test_check_names_the_card_its_driver_and_who_has_its_memory(
    stand_in_torch: Path, monkeypatch: pytest.MonkeyPatch
):
    card = SimulatedCard("GeForce RTX 3060", "GPU-1", users={os.getpid(): 2000 * MIB, 1 << 30: 0})
    SimulatedNvml([card]).install(monkeypatch)
    build, found, memory = device()
    assert (build.verdict, build.detail) == (Verdict.ok, "2.7.1+cu126, CUDA 12.6")
    assert "GeForce RTX 3060, compute capability 8.6, driver 570.86" in found.detail
    assert found.verdict is Verdict.failed  # as this torch says
    assert "6000 of 8192 MiB free; used by " in memory.detail
    assert f"({os.getpid()}) 2000 MiB, process {1 << 30}" in memory.detail


def test_check_refuses_a_card_that_torch_has_no_kernels_for_and_says_which_torch_has(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("hordelib.setup.torch_builds.has_several_builds", lambda: True)
    found = on_card(PASCAL, probed(PASCAL))
    assert found.verdict is Verdict.failed
    assert "torch 2.14.1+cu130 has no kernels for it: it has sm_75" in found.detail
    assert "update-runtime.sh: torch 2.7 with CUDA 12.4 to 12.6 is the newest" in found.remedy


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("CUDA error: out of memory", "end other programs"),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "compute mode"),
        ("The NVIDIA driver on your system is too old (found version 11040).", "update the NVIDIA"),
        ("CUDA error: no kernel image is available for execution", "update-runtime.sh"),
        ("CUDA error: uncorrectable ECC error encountered", "reboot"),
        ("a small computation gives nan", "reboot"),
    ],
)
def test_each_way_in_which_a_card_does_not_compute_has_its_remedy(error: str, remedy: str):
    found = on_card(CARD, probed(error=error))
    assert found.verdict is Verdict.failed
    assert error in found.detail
    assert remedy in found.remedy


def test_a_card_that_computes_is_well():
    found = on_card(CARD, probed())
    assert (found.verdict, found.remedy) == (Verdict.ok, "")
    assert on_card(CARD, probed(card=None)).verdict is Verdict.failed


@pytest.mark.parametrize(
    ("kernels", "capability", "expected"),
    [
        (TURING_UP, (8, 9), True),
        (TURING_UP, (7, 0), False),
        (TURING_UP, (6, 1), False),
        (("sm_50", "compute_80"), (12, 0), True),
        (("sm_90a",), (9, 0), True),
    ],
)
def test_a_kernel_runs_on_its_own_kind_of_card_and_newer_minor_ones(
    kernels: tuple[str, ...], capability: tuple[int, int], expected: bool
):
    assert has_kernels(kernels, capability) is expected


def test_a_torch_that_crashes_is_told(stand_in_torch: Path):
    stand_in_torch.write_text("raise OSError('libcudart.so.13: no such file')")
    (found,) = device()
    assert found.verdict is Verdict.failed
    assert "libcudart.so.13" in found.detail


def test_the_torch_that_is_here_is_told():
    probe = ask_torch()
    assert (probe.version, probe.cuda) == (torch.__version__, torch.version.cuda)
    assert bool(probe.kernels) == (probe.cuda is not None)

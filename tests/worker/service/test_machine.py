"""What the page shows of the machine: the real memory and disk, and cards that are simulated."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from tests.support.simulated_nvml import MIB, SimulatedCard, SimulatedNvml
from worker.config.keys import BridgeConfig
from worker.service.machine import Machine, MachineReading

CARDS = [
    SimulatedCard("Display", "GPU-1", memory_bytes=2048 * MIB, free_bytes=1000 * MIB),
    SimulatedCard("Worker", "GPU-2", memory_bytes=8192 * MIB, free_bytes=6000 * MIB),
]


def reading(home: Path) -> MachineReading:
    config = BridgeConfig.model_validate({"api_key": "x" * 22, "dreamer_name": "a worker"})
    return Machine(config, home, 2 << 30).read()


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimulatedNvml:
    nvml = SimulatedNvml([*CARDS])
    nvml.install(monkeypatch)
    for name in ("UtilizationRates", "Temperature", "PowerUsage"):
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", not_supported)
    return nvml


def not_supported(*_: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["Display", "Worker"]), ("1", ["Worker"]), ("GPU-2", ["Worker"])],
)
def test_the_cards_are_those_that_the_worker_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (tmp_path / "models").mkdir()
    told = reading(tmp_path)
    assert [card.name for card in told.cards] == names
    card = told.cards[0]
    assert (card.celsius, card.watts, card.load_percent) == (None, None, None)
    assert told.disk is not None
    assert told.disk.reserve_bytes == 2 << 30


def test_a_card_that_is_hidden_or_does_not_answer_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nvml: SimulatedNvml
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert reading(tmp_path).cards == ()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    nvml.error = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    assert reading(tmp_path).cards == ()

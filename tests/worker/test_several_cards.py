"""Which cards a worker has, by NVML's numbers, and what each of them does of the offer."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from hordelib.files.model import Model
from hordelib.job.params import GenerationParams
from tests.support.simulated_nvml import MIB, SimulatedCard, SimulatedNvml
from worker import devices
from worker.config.config import config_of
from worker.config.keys import BridgeConfig
from worker.devices import chosen_cards
from worker.errors import ConfigError
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.models.memory_fit import card_shares
from worker.models.offer import offer_maker
from worker.service.assembly import make_devices

PARTS = (SimulatedCard("H200 1g", "MIG-aaaa"), SimulatedCard("H200 1g", "MIG-bbbb"))
SMALL = SimulatedCard("RTX 3060 Laptop", "GPU-0000")
LARGE = SimulatedCard("RTX 4090", "GPU-1111", 24576 * MIB, 24000 * MIB)
DIVIDED = SimulatedCard("H200", "GPU-2222", parts=PARTS)


@pytest.fixture(autouse=True)
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimulatedNvml:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = SimulatedNvml([SMALL, LARGE, DIVIDED])
    nvml.install(monkeypatch)
    return nvml


def config(**keys: object) -> BridgeConfig:
    settings = {"api_key": "x" * 22, "dreamer_name": "w", "models_to_load": ["Mine"], "page": ""}
    return config_of({**settings, **keys})


def numbers(*wanted: str) -> list[str]:
    return [card.number for card in chosen_cards(wanted)]


def problem(*wanted: str) -> str:
    with pytest.raises(ConfigError) as caught:
        chosen_cards(wanted)
    (line,) = caught.value.problems
    return line


def test_all_cards_are_meant_where_none_is_named_and_parts_are_cards():
    assert numbers() == ["0", "1", "2:0", "2:1"]
    assert [card.uuid for card in chosen_cards()][2:] == ["MIG-aaaa", "MIG-bbbb"]


def test_a_card_is_named_by_its_number_or_its_uuid_or_the_beginning_of_that():
    assert numbers("1", "GPU-0000", "MIG-b") == ["1", "0", "2:1"]
    assert numbers("2:1", "0") == ["2:1", "0"]


@pytest.mark.parametrize(
    ("visible", "there"),
    [
        ("1", ["1"]),
        ("GPU-1,0", ["0", "1"]),
        ("MIG-bbbb", ["2:1"]),
        ("2", ["2:0"]),  # of a divided card, CUDA takes the first part alone
        ("", []),
        ("1,7,0", ["1"]),  # a number that nothing has hides what is after it
    ],
)
def test_numbers_stay_those_of_nvml_under_cuda_visible_devices(
    monkeypatch: pytest.MonkeyPatch, visible: str, there: list[str]
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert numbers() == there
    for each in there:
        assert numbers(each) == [each]


def test_a_card_that_is_hidden_is_told_with_those_that_are_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    told = "devices: 0: CUDA_VISIBLE_DEVICES hides it; it leaves 1 (RTX 4090, GPU-1111)"
    assert problem("0") == told


def test_two_names_of_one_card_are_told():
    assert problem("1", "GPU-1111") == (
        "devices: GPU-1111 is card 1, which is named before; expected each card once"
    )


def test_a_card_that_is_not_there_is_told_with_those_that_are():
    assert problem("7").startswith("devices: 7: there is no such card; there is 0 (RTX 3060 Lapt")
    assert problem("GPU-9").startswith("devices: GPU-9: there is no such card")


def test_without_a_driver_or_its_nvml_no_card_can_be_named(
    nvml: SimulatedNvml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    nvml.error = pynvml.NVMLError_LibraryNotFound()
    monkeypatch.setattr(devices, "DEVICE_NODES", ())
    assert chosen_cards() == ()
    assert problem("0") == "devices: 0: there is no NVIDIA driver here; leave devices out"
    monkeypatch.setattr(devices, "DEVICE_NODES", (tmp_path,))
    card = devices.Card("RTX 2060", "", 6 << 30, 5 << 30, (7, 5))
    monkeypatch.setattr(devices, "_card_of_torch", lambda: card)
    assert chosen_cards() == (card,), "the one that CUDA has"
    assert "libnvidia-ml.so.1" in problem("0")


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("first", "devices: 'first'; expected all, or a list of cards"),
        ([], "devices: []; expected all, or a list of cards"),
        ([True], "devices[0].card: True; expected a card's number as nvidia-smi has it"),
        ([{"max_power": 8}], "devices[0].card: missing; expected a card's number"),
        ([{"card": 0, "max_power": 0}], "devices[0].max_power: 0; expected a whole number from 1"),
        ([{"card": 0, "cores": 1}], "devices[0].cores: unknown; expected card, name, max_power"),
        ([{"card": 0, "models_to_load": ["top 2"]}], "devices[0].models_to_load[0]: 'top 2'"),
    ],
)
def test_each_mistake_in_devices_is_a_line_with_the_field(value: object, line: str):
    with pytest.raises(ConfigError) as caught:
        config(devices=value)
    assert any(each.startswith(line) for each in caught.value.problems), caught.value.problems


def test_what_differs_from_card_to_card_is_what_each_takes(checkpoint: Path):
    own = {"card": 0, "name": "left", "max_power": 8, "max_batch": 1, "models_to_load": ["Tiny"]}
    chosen = config(max_power=32, max_batch=4, devices=[own, 1])
    assert chosen.models == ("Mine", "Tiny")
    small, large = card_shares(chosen)
    assert (small.name, large.name) == ("left", "card 1 (RTX 4090)")
    mine, tiny = (Model.of_checkpoint(checkpoint, name) for name in ("Mine", "Tiny"))
    job = GenerationParams(prompt="", width=1024, height=1024)
    assert not small.takes(mine, job)
    assert not small.takes(tiny, job), "larger than its max_power"
    assert large.takes(mine, job)
    assert large.takes(tiny, job)
    assert small.takes(tiny, GenerationParams(prompt="", width=512, height=512))
    assert not small.takes(tiny, GenerationParams(prompt="", width=64, height=64, images=2))


def test_the_offer_is_what_the_machine_can_do(checkpoint: Path, tmp_path: Path):
    mine, tiny = (Model.of_checkpoint(checkpoint, name) for name in ("Mine", "Tiny"))
    models = {"Mine": mine, "Tiny": tiny}
    alike = config(max_power=32, max_batch=4, devices=[0, {"card": 1, "max_power": 16}])
    offer = offer_maker(alike, tmp_path)(models, frozenset())
    assert (offer.threads, offer.amount, offer.max_pixels) == (2, 4, 1024 * 1024)
    apart = config(
        max_power=32,
        devices=[
            {"card": 0, "max_power": 8, "max_batch": 2, "models_to_load": ["Tiny"]},
            {"card": 1, "models_to_load": ["Mine"]},
        ],
    )
    offer = offer_maker(apart, tmp_path)(models, frozenset())
    assert offer.models == ("Mine", "Tiny")
    assert (offer.amount, offer.max_pixels) == (2, 512 * 512), "as each model can be made"


def test_each_card_has_an_engine_that_sees_no_other(tmp_path: Path):
    journal = Journal(Ledger(None))
    made = make_devices(config(devices=["2:1", 1]), tmp_path, journal.predictor)
    settings = [vars(device.engine)["_child"]._settings for device in made]
    assert [it.card for it in settings] == ["MIG-bbbb", "GPU-1111"]
    assert {it.device for it in settings} == {"cuda:0"}, "each engine's only one"
    assert len({it.log_file for it in settings}) == len({it.memory_file for it in settings}) == 2
    assert made[0].predictor is journal.predictor
    assert made[1].predictor is not journal.predictor, "another kind of card"

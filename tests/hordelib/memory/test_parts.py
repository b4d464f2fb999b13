"""Parts of real models: what they take of memory, and that they come back as they were."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hordelib import Engine
from hordelib.files.model_key import CHECKPOINT_PARTS, ModelKey
from hordelib.graphs.build import build_graph
from hordelib.graphs.node_names import model_keys
from hordelib.job.families import FAMILIES
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.cache import ModelCache
from hordelib.memory.loans import DeviceLoans
from tests.conftest import PROJECT
from tests.hordelib.test_engine import SMALL
from tests.support.family_files import model_of

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def measured(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Resident bytes of a process, grown since before a second checkpoint was loaded there."""
    second = tmp_path_factory.mktemp("second") / "second.safetensors"
    os.link(checkpoint, second)
    command = [
        sys.executable,
        "-P",
        "-m",
        "tests.support.memory_probe",
        str(checkpoint),
        str(second),
    ]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    readings: dict[str, int] = json.loads(done.stdout)
    before = readings.pop("before")
    return {name: value - before for name, value in readings.items()}


def test_a_loaded_checkpoint_takes_a_tenth_of_its_file_until_it_is_used(
    measured: dict[str, int], checkpoint: Path
):
    file_bytes = checkpoint.stat().st_size
    assert measured["loaded"] < file_bytes / 10
    assert measured["used"] > file_bytes  # the UNet computes in a type twice as large


def test_what_is_dropped_is_given_back_to_the_system(measured: dict[str, int], checkpoint: Path):
    assert measured["dropped"] < checkpoint.stat().st_size / 20


@pytest.fixture
def unet(engine: Engine, checkpoint: Path) -> Any:
    """The part on the CPU; `engine` has started ComfyUI."""
    from hordelib.comfyui.loaders import load_part

    return load_part(ModelKey("checkpoint", checkpoint, "unet"))


@pytest.mark.usefixtures("engine")
def test_the_files_pages_are_let_go_of_once_weights_are_converted(checkpoint: Path, tmp_path: Path):
    from hordelib.comfyui.loaders import load_part

    os.link(checkpoint, mine := tmp_path / "mine.safetensors")  # that nobody else has mapped
    part = load_part(ModelKey("checkpoint", mine, "unet"))
    part.to_device()
    resident = [each.rss for each in psutil.Process().memory_maps() if each.path == str(mine)]
    assert len(resident) > 0
    assert sum(resident) < mine.stat().st_size / 20  # all of the UNet's would be a fifth
    part.to_host()
    assert is_as_in(part, load_file(mine))


def own_weights(part: Any) -> Iterator[tuple[str, Tensor]]:
    yield from part.value.model.diffusion_model.named_parameters()


def is_as_in(part: Any, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, weights[UNET + name]) for name, value in own_weights(part))


def test_a_part_that_was_used_with_a_lora_goes_back_to_its_files_weights(
    unet: Any, checkpoint: Path
):
    from comfy.model_management import load_models_gpu

    name, weight = next(iter(own_weights(unet)))
    clone = unet.value.clone()
    clone.add_patches({f"diffusion_model.{name}": ("diff", (torch.ones(weight.shape),))}, 1.0)
    unet.to_device()
    load_models_gpu([clone])
    file = load_file(checkpoint)
    patched = unet.value.model.diffusion_model.get_parameter(name)
    assert (patched - file[UNET + name].float() - 1).abs().max() < 1e-6
    assert unet.device_bytes == 2 * sum(file[UNET + name].nbytes for name, _ in own_weights(unet))
    unet.to_host()
    assert unet.device_bytes == 0
    assert is_as_in(unet, file)


def test_weights_that_run_out_of_memory_on_the_way_are_the_files_again():
    from hordelib.memory.mapped_weights import MappedWeights, _Place

    fits, vast = nn.Linear(4, 4), nn.Linear(1, 1)
    small, large = torch.zeros(4, 4).half(), torch.zeros(1).half().expand(1 << 50)
    weights = MappedWeights()
    weights._places = [
        _Place(fits, "weight", small, torch.float32),
        _Place(vast, "weight", large, torch.float32),
    ]
    weights.release()
    with pytest.raises(RuntimeError, match="memory"):
        weights.convert()
    assert not weights.is_converted
    assert fits.weight.data_ptr() == small.data_ptr()


def test_a_part_comes_off_a_card_without_being_copied_back(unet: Any, checkpoint: Path):
    """The device of type meta keeps no values: what is there afterwards was never on it."""
    from hordelib.memory.parts import Patched

    patcher, card = unet.value, torch.device("meta")
    patcher.load_device = card
    on_card = Patched(patcher, patcher, unet._weights)
    assert on_card.missing_bytes == patcher.model_size()
    on_card.to_device()
    patcher.model.diffusion_model.to(card)  # as ComfyUI does when it loads a model completely
    patcher.model.model_loaded_weight_memory = patcher.model_size()
    assert on_card.missing_bytes == 0
    assert {weight.device.type for _, weight in own_weights(unet)} == {"meta"}
    on_card.to_host()
    assert on_card.device_bytes == 0
    assert is_as_in(unet, load_file(checkpoint))


def test_of_a_card_other_patches_take_the_weights_that_they_change_and_no_others(
    unet: Any, checkpoint: Path
):
    """ComfyUI itself would copy all of them, which a device of type meta can't."""
    from hordelib.memory.parts import Patched

    patcher, card = unet.value, torch.device("meta")
    patcher.load_device = card
    on_card = Patched(patcher, patcher, unet._weights)
    owners = dict.fromkeys(name.rpartition(".")[0] for name, _ in own_weights(unet))
    names = [f"diffusion_model.{owner}.weight" for owner in owners][:3]
    sampling = patcher.model.model_sampling
    schedule = dict(sampling.named_buffers())
    weak, strong = patcher.clone(), patcher.clone()
    weak.add_patches({name: ones_like(patcher.model, name) for name in names[:2]}, 0.5)
    strong.add_patches({name: ones_like(patcher.model, name) for name in names[1:]}, 1.0)
    whole_bytes = 0
    turns = [(patcher, names), (weak, names[:2]), (strong, names), (patcher, names[1:])]
    for clone, changed in turns:
        on_card.make_way(clone)
        on_card.make_way(clone)
        if whole_bytes:
            taken_bytes = sum(module_bytes(patcher.model, name) for name in changed)
            assert whole_bytes - on_card.device_bytes == taken_bytes
        on_card.to_device()
        clone.partially_load(card, 1e32)
        sampling._buffers.update(schedule)  # some numbers that are copied, as is no harm
        assert on_card.missing_bytes == 0
        assert patcher.backup.keys() == clone.patches.keys()
        on_card.make_way(clone)
        assert on_card.missing_bytes == 0, "what has the same patches stays"
        whole_bytes = on_card.device_bytes
    on_card.to_host()
    assert is_as_in(unet, load_file(checkpoint))


def module_bytes(model: nn.Module, name: str) -> int:
    """Of the module that has this weight."""
    memory: Any = importlib.import_module("comfy.model_management")
    return memory.module_size(model.get_submodule(name.rpartition(".")[0]))


def ones_like(model: nn.Module, name: str) -> tuple[str, tuple[Tensor]]:
    return "diff", (torch.ones(model.get_parameter(name).shape),)


def test_another_lora_has_the_weights_of_the_one_before_off_the_card_before_it_is_lent(
    unet: Any, checkpoint: Path
):
    from hordelib.memory.parts import Patched

    patcher, card = unet.value, torch.device("meta")
    patcher.load_device = card
    on_card = Patched(patcher, patcher, unet._weights)
    schedule = dict(patcher.model.model_sampling.named_buffers())
    name, weight = next(iter(own_weights(unet)))
    one, other = patcher.clone(), patcher.clone()
    for clone in (one, other):
        clone.add_patches({f"diffusion_model.{name}": ("diff", (torch.ones(weight.shape),))}, 1.0)
    plenty = MemoryBudget(lambda: 1 << 40, 0)
    cache: Any = ModelCache(lambda _: on_card, plenty, plenty)
    key = ModelKey("checkpoint", checkpoint, "unet")
    with cache.hold(key) as held, DeviceLoans({key: held}, lambda _: 0, cache, lambda: 0) as loans:
        loans.bring([one])
        one.partially_load(card, 1e32)
        patcher.model.model_sampling._buffers.update(schedule)
        loans.bring([one])
        assert on_card.missing_bytes == 0, "the same one moves nothing"
        whole_bytes = on_card.device_bytes
        loans.bring([other])
        changed_bytes = module_bytes(patcher.model, f"diffusion_model.{name}")
        assert whole_bytes - on_card.device_bytes == changed_bytes
    assert patcher.model.current_weight_patches_uuid == other.patches_uuid


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_some_of_a_part_comes_off_a_card_without_being_copied_and_goes_back(
    unet: Any, checkpoint: Path, strength: float
):
    from hordelib.memory.parts import Patched

    memory: Any = importlib.import_module("comfy.model_management")
    patcher, card = unet.value, torch.device("meta")
    patcher.load_device = card
    on_card = Patched(patcher, patcher, unet._weights)
    on_card._weights.converted_bytes = 0  # as of a file that has what is computed with
    patcher.size = memory.module_size(patcher.model)
    clone = patcher.clone()
    if strength:
        names = [name for name, _ in own_weights(unet)]
        ones = {name: torch.ones(weight.shape) for name, weight in own_weights(unet)}
        clone.add_patches({f"diffusion_model.{n}": ("diff", (ones[n],)) for n in names}, strength)
    sampling = patcher.model.model_sampling
    schedule = dict(sampling.named_buffers())
    loaded = memory.LoadedModel(clone)
    loaded.model_load()
    memory.current_loaded_models.insert(0, loaded)
    whole_bytes = on_card.device_bytes
    assert on_card.give_back(whole_bytes // 3)
    assert on_card.give_back(whole_bytes // 3)
    assert 0 < on_card.device_bytes <= whole_bytes // 3
    file = load_file(checkpoint)
    back = {name: weight for name, weight in own_weights(unet) if weight.device.type == "cpu"}
    assert sum(weight.nbytes for weight in back.values()) >= 2 * (whole_bytes // 3)
    assert all(torch.equal(weight, file[UNET + name]) for name, weight in back.items())
    functions = [f for m in patcher.model.modules() for f in getattr(m, "weight_function", ())]
    assert bool(functions) == bool(strength), "what streams is patched on the way"
    assert not on_card.give_back(on_card.device_bytes), "the whole goes in another way"

    loaded.model_load()
    assert on_card.missing_bytes == 0
    assert {weight.device.type for _, weight in own_weights(unet)} == {"meta"}
    sampling._buffers.update(schedule)
    on_card.to_host()
    assert loaded not in memory.current_loaded_models
    assert is_as_in(unet, file)


def test_parts_of_one_file_share_its_pages(engine: Engine, checkpoint: Path):
    from hordelib.comfyui.loaders import load_part

    parts = [load_part(ModelKey("checkpoint", checkpoint, part)) for part in CHECKPOINT_PARTS]
    again = load_part(ModelKey("checkpoint", checkpoint, "unet"))
    addresses = [[each.data_ptr() for _, each in own_weights(p)] for p in (parts[0], again)]
    assert addresses[0] == addresses[1]


def test_every_part_that_a_graph_uses_is_an_entry_of_its_own():
    def used(family: str) -> list[tuple[str, str]]:
        keys = model_keys(build_graph(SMALL, model_of(FAMILIES[family])))
        return [
            (key.path.stem, key.variant if key.kind == "checkpoint" else key.kind) for key in keys
        ]

    assert [part for _, part in used("stable diffusion 1")] == list(CHECKPOINT_PARTS)
    assert used("stable_cascade") == [
        ("stable_cascade_stage_c", "unet"),
        ("stable_cascade_stage_c", "text_encoder"),
        ("stable_cascade_stage_b", "unet"),
        ("stable_cascade_stage_b", "vae"),
    ]
    assert [part for _, part in used("flux_1")] == list(CHECKPOINT_PARTS)
    split = ["diffusion_model", "text_encoder", "vae"]
    assert [part for _, part in used("qwen_image")] == split
    assert [part for _, part in used("z_image_turbo")] == split

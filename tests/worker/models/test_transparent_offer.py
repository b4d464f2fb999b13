"""`allow_sdxl_controlnet` stands for QR codes with SDXL and for transparent pictures, together."""

from __future__ import annotations

from pathlib import Path

import pytest

from hordelib.files.model import Model
from hordelib.job.families import FLUX, SD1, SDXL, Family
from hordelib.job.transparency import LAYER_DIFFUSE
from hordelib.pictures.qr_code import control_net_file
from worker.config.keys import BridgeConfig
from worker.models.capabilities import Capability, Installed, capabilities
from worker.models.files.unlisted_weights import transparency_entries


def capability(
    folder: Path, *families: Family, wanted: bool = True, broken: frozenset[Path] = frozenset()
) -> Capability:
    config = BridgeConfig.model_validate(
        {"api_key": "a", "dreamer_name": "b", "allow_sdxl_controlnet": wanted}
    )
    models = [Model(family.name, family, {}) for family in families]
    found = capabilities(config, Installed(folder, broken), models)
    return next(each for each in found if each.flag == "allow_sdxl_controlnet")


def files_of(folder: Path, family: Family) -> list[Path]:
    net = control_net_file(folder, family.name)
    assert net is not None
    row = LAYER_DIFFUSE[family.name]
    return [net, *(folder / "miscellaneous" / weights.file for weights in row.weights)]


@pytest.mark.parametrize("families", [(SD1,), (SDXL,), (SD1, SDXL, FLUX)])
def test_it_is_offered_when_all_that_it_stands_for_is_there(
    tmp_path: Path, families: tuple[Family, ...]
):
    files = [
        file for family in families if family is not FLUX for file in files_of(tmp_path, family)
    ]
    for missing in files:
        lacking = capability(tmp_path, *families)
        assert not lacking.is_offered
        assert str(missing.relative_to(tmp_path)) in lacking.missing
        missing.parent.mkdir(exist_ok=True)
        missing.touch()
    assert capability(tmp_path, *families) == Capability("allow_sdxl_controlnet", is_offered=True)
    assert not capability(tmp_path, *families, wanted=False).is_offered
    for each in files:
        broken = capability(tmp_path, *families, broken=frozenset([each]))
        assert each.name in broken.missing


def test_what_is_missing_is_told_with_its_size_and_the_command_that_brings_it(tmp_path: Path):
    told = capability(tmp_path, SDXL).missing
    assert "miscellaneous/layer_xl_transparent_conv.safetensors (3.4 GB)" in told
    assert told.endswith("(models add layer_diffuse_sdxl)")


def test_a_family_without_transparent_pictures_is_told_so(tmp_path: Path):
    assert "no model on offer" in capability(tmp_path, FLUX).missing


def test_the_files_are_downloaded_with_the_sums_of_the_reference():
    entries = transparency_entries()
    assert [entry.name for entry in entries] == ["layer_diffuse_sd15", "layer_diffuse_sdxl"]
    for file in (file for entry in entries for file in entry.files):
        assert file.path.parent.name == "miscellaneous"
        assert len(file.sha256) == 64
        assert file.url.endswith(f"/{file.path.name}")
        assert file.size_bytes > 0

"""Families that an older ComfyUI does not know leave the offer, and the owner is told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from hordelib.comfyui import versions
from hordelib.job.families import ANIMA, FAMILIES, KREA2, SD1, Family
from hordelib.setup.comfyui_files import COMFYUI, NEWER
from tests.support.family_files import HEADERS, write_header
from tests.support.reference_server import reference_server
from worker.config.keys import BridgeConfig
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.opening import find_models


def comfyui(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


@pytest.mark.parametrize(
    ("version", "is_served"), [("0.3.75", False), ("0.33.0", True), ("0.46.1", True)]
)
@pytest.mark.parametrize("family", [KREA2, ANIMA], ids=lambda family: family.name)
def test_a_model_is_offered_only_where_the_comfyui_knows_its_family(
    tmp_path: Path, family: Family, version: str, is_served: bool
):
    folder = comfyui(tmp_path / "ComfyUI", version)
    for loader in family.loaders:
        path = tmp_path / "models" / "compvis" / loader.folder / loader.file
        path.parent.mkdir(parents=True, exist_ok=True)
        is_main = loader is family.loaders[0]
        write_header(path, HEADERS[family.name] if is_main else {"a.weight": (1, 1)}, prefix="")
    main = f"models/compvis/{family.loaders[0].file}"
    config = BridgeConfig.model_validate(
        {
            "api_key": "k",
            "dreamer_name": "w",
            "models_to_load": [],
            "custom_models": [{"name": "Mine", "baseline": family.name, "filepath": main}],
            "comfyui_path": str(folder),
        }
    )
    models = find_models(config, tmp_path)
    assert bool(models.served) is is_served
    problems = "; ".join(models.problems)
    assert ("needs ComfyUI 0.33.0" in problems) is not is_served
    assert ("./update-runtime.sh --comfyui 0.33.0" in problems) is not is_served


@pytest.mark.parametrize(("version", "is_wanted"), [("0.3.75", False), ("0.33.0", True)])
def test_a_listed_model_is_downloaded_only_where_the_comfyui_knows_its_family(
    tmp_path: Path, version: str, is_wanted: bool
):
    with reference_server() as site:
        site.offer_model("Krea", baseline=KREA2.name)
        site.offer_model("Old")
        config = BridgeConfig.model_validate(
            {
                "api_key": "k",
                "dreamer_name": "w",
                "horde_url": site.url,
                "model_reference": f"{site.url}/reference",
                "models_to_load": ["Krea", "Old"],
                "comfyui_path": str(comfyui(tmp_path / "ComfyUI", version)),
            }
        )
        inventory = take_inventory(ModelsFolder.of(config, tmp_path))
    fetched = [stock.name for stock in inventory.plan.fetched]
    assert sorted(fetched) == (["Krea", "Old"] if is_wanted else ["Old"])
    needs = "model 'Krea': krea2_turbo needs ComfyUI 0.33.0"
    assert [problem.startswith(needs) for problem in inventory.problems] == [True] * (not is_wanted)


def test_each_family_is_known_to_some_version_that_can_be_installed(tmp_path: Path):
    old = comfyui(tmp_path / "old", COMFYUI.version)
    new = comfyui(tmp_path / "new", NEWER.version)
    assert all(versions.knows(new, family) for family in FAMILIES.values())
    assert versions.knows(old, SD1)
    assert versions.version_in(tmp_path) == ""

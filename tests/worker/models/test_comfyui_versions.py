"""Families that an older ComfyUI does not know leave the offer, and the owner is told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from hordelib.comfyui import versions
from hordelib.job.families import ANIMA, FAMILIES, KREA2, SD1, Family
from hordelib.setup.comfyui_files import COMFYUI, NEWER
from tests.support.family_files import HEADERS, write_header
from worker.config.keys import BridgeConfig
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


def test_each_family_is_known_to_some_version_that_can_be_installed(tmp_path: Path):
    old = comfyui(tmp_path / "old", COMFYUI.version)
    new = comfyui(tmp_path / "new", NEWER.version)
    assert all(versions.knows(new, family) for family in FAMILIES.values())
    assert versions.knows(old, SD1)
    assert versions.version_in(tmp_path) == ""

"""From configured names to models: which have all files, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hordelib.comfyui import versions
from hordelib.errors import JobError, ModelBroken, ModelMissing
from hordelib.files.completeness import insist_on_whole
from hordelib.files.headers import verify_checkpoint
from hordelib.files.model import Model
from hordelib.files.names import ModelStore
from hordelib.job.families import FLUX, FLUX_DEV
from worker.config.keys import BridgeConfig
from worker.models.inventory import Inventory, comfyui_folder


@dataclass(frozen=True, slots=True)
class Models:
    """What the configured names came to: models that serve, and a line for each that doesn't."""

    served: Mapping[str, Model]
    problems: tuple[str, ...]


def find_models(config: BridgeConfig, home: Path, inventory: Inventory | None = None) -> Models:
    """The files of each configured model; a missing or damaged one becomes a problem.

    With an inventory, its names count but for those that are still to come, and what the reference
    lists has to be verified.
    """
    if inventory is None:
        names = config.models
        files = {model.name: home / model.filepath for model in config.custom_models}
    else:
        coming = {stock.name for stock in inventory.coming}
        names = tuple(name for name in inventory.names if name not in coming)
        files = inventory.files
    served: dict[str, Model] = {}
    problems: list[str] = [] if inventory is None else [*inventory.problems]
    for name in names:
        try:
            if inventory is not None:
                inventory.insist_on_verified(name)
            model = open_model(config.models_folder(home), name, files)
            _insist_on_baseline(model, config)
            insist_on_comfyui(model, comfyui_folder(config, home))
            served[name] = model
        except JobError as error:
            problems.append(str(error))
    return Models(served, tuple(problems))


_KINDRED = {FLUX_DEV.name: FLUX.name}  # the horde has one name for both


def _insist_on_baseline(model: Model, config: BridgeConfig) -> None:
    """Raises ModelBroken where custom_models says another family than the file itself."""
    family = model.family.name
    said = {custom.name: custom.baseline for custom in config.custom_models}.get(model.name)
    if said is not None and _KINDRED.get(said, said) != _KINDRED.get(family, family):
        told = f"custom_models: {model.name!r}: its file is of {family}, not of {said}"
        raise ModelBroken(f"{told}: correct baseline, or filepath")


def insist_on_comfyui(model: Model, comfyui: Path) -> None:
    """Raises ModelMissing where that ComfyUI is too old for the model's family."""
    if why := versions.lack(comfyui, model.name, model.family):
        raise ModelMissing(why)


def open_model(folder: Path, name: str, files: Mapping[str, Path]) -> Model:
    """The model of that name, all of whose files are there and have what it needs. Raises JobError.

    `files` has the main file of each name that is not served by a file called like it.
    """
    main = ModelStore(folder, files).checkpoint(name)
    verify_checkpoint(main)
    model = Model.of_checkpoint(main, name)
    for path in model.files.values():
        if not path.is_file():
            raise ModelMissing(f"model {name!r}: there is no file {path}")
        verify_checkpoint(path)
    insist_on_whole(model)
    return model

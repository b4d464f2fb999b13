"""The LoRAs on disk for the page: which there are, and removing one."""

from __future__ import annotations

from typing import Any

from worker.errors import UnknownModel
from worker.loras.adapters import Adapters
from worker.loras.files import LoraFile

CIVITAI = "https://civitai.com/models/{model_id}?modelVersionId={version_id}"


def loras_shown(adapters: Adapters) -> dict[str, Any]:
    """As JSON, those first that were used last."""
    files = sorted(adapters.loras.files(), key=lambda file: -file.used_at)
    return {
        "loras": [_shown(file) for file in files],
        "used_bytes": adapters.loras.used_bytes,
        "most_bytes": adapters.loras.most_bytes,
    }


def remove_lora(adapters: Adapters, name: str) -> dict[str, Any]:
    """Delete a file of the cache; a job that names it later has it downloaded again.

    Raises UnknownModel for one that is not there, is the owner's, or is needed by a job in hand.
    """
    file = next((file for file in adapters.loras.files() if file.path.name == name), None)
    if file is None:
        raise UnknownModel(f"{name[:100]!r} is not among the LoRAs on disk")
    if not file.is_ours:
        raise UnknownModel(f"{name} is yours: delete it in {file.path.parent}")
    if not adapters.loras.remove(file):
        raise UnknownModel(f"{file.about.name} is needed by a job in hand: try again in a minute")
    return {"freed_bytes": file.about.size_bytes}


def _shown(file: LoraFile) -> dict[str, Any]:
    about = file.about
    ids = {"model_id": about.model_id, "version_id": about.version_id}
    return {
        "file": file.path.name,
        "name": about.name,
        "version": about.version_name,
        "base_model": about.base_model,
        "size_bytes": about.size_bytes,
        "used_at": file.used_at,
        "is_yours": not file.is_ours,
        "link": CIVITAI.format(**ids) if file.is_ours else "",
    }

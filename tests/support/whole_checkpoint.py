"""All parts of a checkpoint at once, as ComfyUI's objects, outside of any cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hordelib.comfyui.loaders import load
from hordelib.files.model_key import CHECKPOINT_PARTS, ModelKey


@dataclass(frozen=True, slots=True)
class Whole:
    model: Any
    clip: Any
    vae: Any


def load_whole(path: Path) -> Whole:
    """ModelPatcher, CLIP and VAE; ComfyUI has to be started."""
    return Whole(*load_keys(path).values())


def load_keys(path: Path) -> dict[ModelKey, Any]:
    """The same as a running graph finds them."""
    keys = [ModelKey("checkpoint", path, part) for part in CHECKPOINT_PARTS]
    return {key: load(key) for key in keys}

"""A model's file as tensors: read as what it is, whatever it is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

from hordelib.files.file_kinds import FileKind, kind_of
from hordelib.files.pickles import insist_on_safe_pickle
from hordelib.files.safetensors_header import read_header

State = dict[str, Tensor]


class _Inert:
    """Takes the place of what trainers leave in a checkpoint beside the tensors."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


# Callbacks, and numbers of numpy (a loss, a step) as numpy 1 and 2 pickle them: nobody looks at
# them, and torch's `weights_only` reads none of numpy's but float64, in words that advise against
# its use.
_INERT = (
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)


def allow_leftovers() -> None:
    """Have torch's `weights_only` read what `pickle_walk` lets pass, and nothing else.

    The names that ComfyUI has allowed stand for the real classes and functions; ours do nothing.
    """
    registry: Any = torch.serialization  # its types are incomplete
    registry.clear_safe_globals()
    registry.add_safe_globals(
        [type(name, (_Inert,), {"__module__": module}) for module, name in _INERT]
    )


def read_tensors(path: Path) -> tuple[State, Mapping[str, str] | None]:
    """All tensors by name, and the metadata of a safetensors file, whose pages are mapped.

    Raises ModelBroken, naming the file and the remedy, and what torch and safetensors raise.
    """
    kind = kind_of(path)
    if kind is FileKind.safetensors:
        read_header(path)
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata()
    insist_on_safe_pickle(path, kind)
    with path.open("rb") as file:  # of a path, torch would believe the suffix
        return _state(torch.load(file, map_location="cpu", weights_only=True)), None


def _state(saved: Any) -> State:
    """As ComfyUI takes a checkpoint apart: its tensors may lie under a name of their own."""
    if "state_dict" in saved:
        return saved["state_dict"]
    only: Any = next(iter(saved.values())) if len(saved) == 1 else None
    return cast("State", only) if isinstance(only, dict) else saved

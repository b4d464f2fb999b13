"""Weights of networks on pixels, from files of either format."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.nn import init

_SAFETENSORS = ".safetensors"
_PARALLEL = "module."  # how names begin that were saved from several cards


def read_weights(path: Path) -> Any:
    """What is in the file, in main memory; of a pickle, tensors and containers alone."""
    if path.suffix == _SAFETENSORS:
        return safetensors.torch.load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def filled(network: Any, path: Path, part: str = "") -> Any:
    """The network with all weights of the file, or of one of its parts, ready to be used."""
    state = read_weights(path)
    state = state[part] if part else state
    network.load_state_dict({name.removeprefix(_PARALLEL): each for name, each in state.items()})
    return network.eval()


@contextmanager
def without_initial_values() -> Generator[None]:
    """Networks that are made in the block have no values before they are filled: random ones would
    take most of the time."""
    names = [name for name in vars(init) if name.endswith("_") and not name.startswith("_")]
    functions = {name: getattr(init, name) for name in names}
    try:
        for name in names:
            setattr(init, name, _unchanged)
        yield
    finally:
        for name, function in functions.items():
            setattr(init, name, function)


def _unchanged(tensor: torch.Tensor, *_: object, **_options: object) -> torch.Tensor:
    return tensor

"""The tensors of a TorchScript archive, read without running anything of it.

torch itself would compile the program and call parts of it. Here the pickle of its attributes is
read with stand-ins for every class, and each tensor's bytes are taken from its own member of the
zip, which has to be stored as it is.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from hordelib.errors import ModelBroken

MOST_PICKLE_BYTES = 8 << 20
DEEPEST = 50  # attributes of attributes

_TYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every tensor by the path of its attributes, as `state_dict` names them.

    Raises ModelBroken, naming the file, for one that is cut off, or holds more than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _Attributes(archive).load()
        return dict(_tensors(root, "", DEEPEST))
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ModelBroken(f"{path}: a damaged archive ({reason}); fetch it again") from error


_UNREADABLE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError),
    *(ValueError, zipfile.BadZipFile, pickle.UnpicklingError),
)


class _Module:
    """Stands for an object of the program: nothing but its attributes."""

    attributes: Mapping[str, object] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = cast("Mapping[str, object]", state)


class _Attributes(pickle.Unpickler):
    """Knows the few names that tensors and modules are written with."""

    def __init__(self, archive: zipfile.ZipFile):
        (name,) = (each for each in archive.namelist() if each.rpartition("/")[2] == "data.pkl")
        info = archive.getinfo(name)
        if info.file_size > MOST_PICKLE_BYTES or info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its list of tensors is too long, or packed")
        super().__init__(io.BytesIO(archive.read(info)))
        self._archive = archive
        self._folder = name.removesuffix("data.pkl")

    def find_class(self, module: str, name: str, /) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        known = _KNOWN.get((module, name))
        if known is None:
            raise ValueError(f"it asks for {module}.{name}")
        return known

    def persistent_load(self, pid: Any, /) -> Tensor:
        """A tensor's memory, of one dimension."""
        dtype, key, amount = pid[1], pid[2], pid[4]
        info = self._archive.getinfo(f"{self._folder}data/{key}")
        size_bytes = int(amount) * torch.empty(0, dtype=dtype).element_size()
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != size_bytes:
            raise ValueError(f"tensor {key} has another size than it says")
        if not size_bytes:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._archive.read(info)), dtype=dtype)


def _rebuilt(
    memory: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object
) -> Tensor:
    if any(step < 0 for step in stride) or math.prod(size) > memory.numel():
        raise ValueError("a tensor larger than what there is of it")
    return memory.as_strided(tuple(size), tuple(stride), offset)


def _as_list(values: list[Any]) -> list[Any]:
    return list(values)


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): _as_list
        for kind in ("int", "bool", "double", "tensor")
    },
}


def _tensors(node: object, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield prefix, node
    if not isinstance(node, _Module):
        return
    if not depth:
        raise ValueError("attributes of attributes without an end")
    for name, value in node.attributes.items():
        yield from _tensors(value, f"{prefix}.{name}" if prefix else str(name), depth - 1)

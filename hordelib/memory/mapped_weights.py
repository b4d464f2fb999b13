"""Weights that modules take straight from their file, until they are computed with.

A safetensors file is mapped into memory: its pages are read when they are looked at, the system may
drop them at any time, and they come back without us. So a module gets the mapped tensors themselves
instead of copies. Where it computes in another type than the file has, they are converted when it
is about to compute, and go back to the file's afterwards: an idle model costs next to nothing.
While they are converted nobody looks at the file's, so this process lets go of their pages.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from hordelib.files.file_kinds import FileKind, kind_of
from hordelib.files.model_key import FileStamp
from hordelib.memory.heap import drop_pages

State = Mapping[str, Tensor]
Read = Callable[[], tuple[State, Mapping[str, str] | None]]


@dataclass(slots=True)
class _Place:
    """Where one mapped tensor belongs, and the type that the module computes it in."""

    owner: nn.Module
    name: str
    mapped: Tensor
    dtype: torch.dtype

    @property
    def current(self) -> Tensor | None:
        return self.owner._parameters[self.name]

    @property
    def is_mapped(self) -> bool:
        current = self.current
        return current is not None and current.data_ptr() == self.mapped.data_ptr()

    @property
    def converted_bytes(self) -> int:
        """What its own copy takes, where the module needs one."""
        if self.dtype == self.mapped.dtype:
            return 0
        return self.mapped.numel() * self.dtype.itemsize

    def put(self, value: Tensor) -> None:
        self.owner._parameters[self.name] = nn.Parameter(value, requires_grad=False)


class MappedFile:
    """A safetensors file in memory; the parts that are read from it share its pages."""

    def __init__(self, state: State, metadata: Mapping[str, str] | None):
        self.state = state
        self.metadata = metadata
        values = [value for value in state.values() if value.numel()]
        self._ends = {value.data_ptr(): value.data_ptr() + value.nbytes for value in values}
        self._starts = sorted(self._ends)

    def has(self, value: Tensor) -> bool:
        """Whether these are values in the file itself, and no copy of them."""
        if value.device.type != "cpu":
            return False
        before = bisect_right(self._starts, value.data_ptr()) - 1
        return before >= 0 and value.data_ptr() < self._ends[self._starts[before]]


class MappedWeights:
    """What one loaded model has from files that are mapped into memory."""

    def __init__(self) -> None:
        self._files: list[MappedFile] = []
        self._places: list[_Place] = []
        self.missing: list[str] = []  # names that modules have and the files don't
        self.is_converted = False
        self.converted_bytes = 0  # what `convert` takes of main memory, once all is settled

    @property
    def mapped_bytes(self) -> int:
        return sum(place.mapped.nbytes for place in self._places)

    @property
    def computed_bytes(self) -> int:
        """What all weights take in the types that they are computed in."""
        return sum(place.mapped.numel() * place.dtype.itemsize for place in self._places)

    def open(self, path: Path, read: Read) -> MappedFile:
        """The file, mapped once for all who have it open. `read` gives tensors and metadata."""
        key = path, FileStamp.of(path)
        file = _OPEN.get(key) or MappedFile(*read())
        _OPEN[key] = file
        self._files.append(file)
        return file

    def fill(self, module: nn.Module, state: State, strict: bool) -> Any:
        """`module.load_state_dict`, without copies of what is mapped."""
        dtypes = {name: value.dtype for name, value in module.state_dict().items()}
        values = {
            name: value if self._has(value) else value.to(dtypes.get(name, value.dtype))
            for name, value in state.items()
        }
        result: Any = _load_state_dict(module, values, strict, assign=True)
        self.missing += result.missing_keys
        for full_name, value in module.named_parameters():
            if self._has(value):
                path, _, name = full_name.rpartition(".")
                owner = module.get_submodule(path)
                self._places.append(_Place(owner, name, value.detach(), dtypes[full_name]))
        return result

    def settle(self) -> None:
        """The model is complete: take note of what its maker converted, and undo it."""
        for place in self._places:
            current = place.current
            if current is not None and not place.is_mapped:
                place.dtype = current.dtype
                place.put(place.mapped)
        self._measure()

    def compute_in(self, dtype: torch.dtype) -> None:
        """All of them are computed in this type, as their maker said by `module.to(dtype)`.

        That leaves what the file has in this type as it is, so that `settle` can't see it.
        """
        for place in self._places:
            place.dtype = dtype
        self._measure()

    def _measure(self) -> None:
        self.converted_bytes = sum(place.converted_bytes for place in self._places)

    def convert(self) -> None:
        """Give all weights the types that they are computed in; none of them where it raises."""
        if self.is_converted:
            return
        try:
            with torch.inference_mode(False), torch.no_grad():
                for place in self._places:
                    if place.converted_bytes and place.is_mapped:
                        place.put(place.mapped.to(place.dtype))
                        drop_pages(place.mapped.data_ptr(), place.mapped.nbytes)
        except BaseException:
            self.release()
            raise
        self.is_converted = True

    def give_again(self, owners: Collection[nn.Module]) -> None:
        """Have these modules' weights in main memory, in the types that they are computed in."""
        these = set(owners)
        with torch.inference_mode(False), torch.no_grad():
            for place in self._places:
                if place.owner in these:
                    place.put(place.mapped.to(place.dtype))

    def release(self) -> None:
        """Go back to the file's own weights, wherever the others are, and free those."""
        self.is_converted = False
        for place in self._places:
            if not place.is_mapped:
                place.put(place.mapped)

    @contextmanager
    def put_back_where_moved(self) -> Generator[None]:
        """A module that is moved to main memory in the block has the file's own weights there.

        ComfyUI moves module by module, and would copy them.
        """
        places: dict[nn.Module, list[_Place]] = {}
        for place in self._places:
            places.setdefault(place.owner, []).append(place)
        for owner, own in places.items():
            vars(owner)["to"] = partial(_put_back, owner, own)
        try:
            yield
        finally:
            for owner in places:
                del vars(owner)["to"]

    def _has(self, value: Tensor) -> bool:
        return any(file.has(value) for file in self._files)


def _put_back(owner: nn.Module, places: Iterable[_Place], device: torch.device) -> nn.Module:
    for place in places:
        place.put(place.mapped)
    return type(owner).to(owner, device)


_OPEN: WeakValueDictionary[tuple[Path, FileStamp], MappedFile] = WeakValueDictionary()
_CURRENT: ContextVar[MappedWeights | None] = ContextVar("mapped weights", default=None)
_load_state_dict = nn.Module.load_state_dict


@contextmanager
def mapping() -> Generator[MappedWeights]:
    """Models that are made in the block, in this thread, keep the weights of mapped files."""
    weights = MappedWeights()
    token = _CURRENT.set(weights)
    try:
        yield weights
    finally:
        _CURRENT.reset(token)
    weights.settle()


def read_mapped(path: Path, read: Read) -> tuple[dict[str, Tensor], Mapping[str, str] | None]:
    """What `read` gives, the tensors and the metadata of a file; in a block of `mapping` shared."""
    weights = _CURRENT.get()
    if weights is None or kind_of(path) is not FileKind.safetensors:
        state, metadata = read()
        return dict(state), metadata
    file = weights.open(path, read)
    return dict(file.state), file.metadata  # ComfyUI takes out of it what it has used


def install() -> None:
    """Let `load_state_dict` know of `mapping`; outside of such a block it is as it was.

    ComfyUI has no way to be told that it shall not copy.
    """
    if nn.Module.load_state_dict is _load_state_dict:
        nn.Module.load_state_dict = _aware(_load_state_dict)


def _aware(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_state_dict(
        module: nn.Module, state_dict: State, strict: bool = True, assign: bool = False
    ) -> Any:
        weights = _CURRENT.get()
        if weights is None:
            return original(module, state_dict, strict, assign)
        return weights.fill(module, state_dict, strict)

    return load_state_dict

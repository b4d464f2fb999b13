"""Tensors that say `cuda:0` around tensors of the CPU, or around shapes without numbers.

Each operation of torch's that one of them takes part in comes through `run`: it raises where the
card would, counts what it copies and waits for, and takes the result's memory from the card.
Limits: no kernel takes workspace, streams follow each other, and slicing a tensor of the CPU with
one of the card in inference mode fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast
from weakref import WeakValueDictionary

import torch
from torch.utils import _python_dispatch as python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from tests.simcard.allocator import Block
from tests.simcard.card import Card
from tests.simcard.shapes import result_of

DEVICE = torch.device("cuda:0")
LEAST_BLANK = 1 << 14  # numbers: smaller tensors decide something, and always have theirs
HALVES = (torch.float16, torch.bfloat16)
_C: Any = torch._C
_modes: Any = python_dispatch

# Operations whose result the host has to know before it can go on.
WAITING = frozenset(
    [
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "bincount",
        "histc",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
    ]
)
# What tensor cores sum in 32 bits, and round once.
SUMMING = frozenset(["convolution", "mm", "addmm", "bmm", "baddbmm", "linear"])
WIDE = SUMMING | frozenset(
    ["_softmax", "native_group_norm", "native_layer_norm", "silu", "gelu", "upsample_nearest2d"]
)
INDEXING = frozenset(["index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"])
MAKING = ("empty", "zeros", "ones", "rand", "full", "new_", "arange", "linspace", "scalar_tensor")


class Memory:
    """The memory of one storage on the card, given back when its last tensor is gone."""

    def __init__(self, card: Card, size_bytes: int):
        self._card = card
        self._block: Block | None = None
        self._block = card.take(size_bytes)

    def __del__(self) -> None:
        if self._block is not None:
            self._card.allocator.give(self._block)


class CardTensor(torch.Tensor):
    """On the card. `content` is of the CPU, or of the meta device."""

    content: torch.Tensor
    memory: Memory

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor) -> CardTensor:
        memory = _memory_of(inner)
        make: Any = torch.Tensor._make_wrapper_subclass
        made = make(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.content, made.memory = inner, memory
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        own = FUNCTIONS.get(func)
        if own is not None:
            return own(*args, **(kwargs or {}))
        with _C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def data_ptr(self) -> int:
        return 0x7F0000000000 + id(self.memory)

    def untyped_storage(self) -> Any:
        return self.content.untyped_storage()

    def tolist(self) -> Any:
        on_cpu: Any = self.cpu()
        return on_cpu.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def is_pinned(self, device: Any = None) -> bool:
        del device
        return False

    def __deepcopy__(self, _memo: Any) -> Any:
        return self.clone()

    def __repr__(self, **_: Any) -> str:
        return f"CardTensor({tuple(self.shape)}, {self.dtype})"


class _State:
    """Of this process, which has one card."""

    card: ClassVar[Card]
    memories: ClassVar[WeakValueDictionary[int, Memory]] = WeakValueDictionary()
    mutex: ClassVar[Any] = threading.RLock()


def use(card: Card) -> None:
    """Tensors are on this card from now on."""
    _State.card = card


def _memory_of(inner: torch.Tensor) -> Memory:
    storage: Any = inner.untyped_storage()
    with _State.mutex:
        memory = _State.memories.get(storage._cdata)
        if memory is None:
            memory = Memory(_State.card, storage.nbytes())
            _State.memories[storage._cdata] = memory
        return memory


class CardMode(TorchDispatchMode):
    """Within it, tensors that are made on `cuda` are on the card."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation of torch's."""
    flat, spec = tree_flatten((tuple(args), dict(kwargs)))
    ours: list[CardTensor] = [each for each in flat if isinstance(each, CardTensor)]
    device = kwargs.get("device")
    to_card = device is not None and torch.device(device).type == "cuda"
    if not ours and not to_card and DEVICE not in flat:
        return func(*args, **kwargs)
    if _is_composite(func):  # inference mode hands them over whole
        with CardMode():
            done = func.decompose(*args, **kwargs)
        if done is not NotImplemented:
            return done
    name: str = func.overloadpacket.__name__
    _State.card.meet(name, args)
    own = OPERATIONS.get(name)
    if own is not None:
        return own(args, kwargs)
    _check(name, flat, ours, device)
    if device is not None and ours and not to_card:  # such as zeros_like(…, device="cpu")
        with _plain():
            inner_args, inner_kwargs = tree_unflatten([_inner(each) for each in flat], spec)
            return func(*inner_args, **inner_kwargs)
    inner, is_blank = _inner_arguments(flat)
    inner_args, inner_kwargs = tree_unflatten(inner, spec)
    if to_card:
        func = _made_on_card(func, name, inner_args, inner_kwargs, is_blank)
    out = _compute(func, name, flat, (inner_args, inner_kwargs, spec), is_blank)
    if is_blank and func._schema.is_mutable:
        return _blanked(args, kwargs, out)
    return _all_wrapped(out, {id(each.content): each for each in ours})


def _check(name: str, flat: Sequence[Any], ours: Sequence[CardTensor], device: Any) -> None:
    """Raise where a kernel would, and count where the host waits."""
    others = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, CardTensor)]
    if name in WAITING:
        _State.card.wait(name)
    if name in INDEXING:
        masks = any(isinstance(t, torch.Tensor) and t.dtype == torch.bool for t in flat[1:])
        if masks or any(t.dim() for t in others):
            _State.card.wait(name)
    elif ours and not (device is not None and name.startswith(MAKING)):
        bad = next((t for t in others if t.dim()), None)
        if bad is not None:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices,"
                f" cuda:0 and cpu! ({name}, {tuple(bad.shape)})"
            )


def _inner_arguments(flat: Sequence[Any]) -> tuple[list[Any], bool]:
    """What is computed with, and whether there are no numbers in it."""
    inner = [_inner(each) for each in flat]
    is_blank = any(isinstance(each, torch.Tensor) and each.is_meta for each in inner)
    if is_blank:
        inner = [_without_numbers(each) for each in inner]
    return inner, is_blank


def _without_numbers(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not value.is_meta and value.dim():
        return _blank(value)
    return value


def _blank(like: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty_strided(like.size(), like.stride(), dtype=dtype or like.dtype, device="meta")


def _made_on_card(
    func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], is_blank: bool
) -> Any:
    """The operation that makes on the CPU, or without numbers, what the card is to have."""
    is_large = not _State.card.has_numbers and _numbers(args) >= LEAST_BLANK
    kwargs["device"] = torch.device("meta" if is_blank or is_large else "cpu")
    kwargs.pop("pin_memory", None)
    if is_blank or is_large:
        kwargs.pop("generator", None)
    return torch.ops.aten.zeros.default if name.startswith("_efficientzerotensor") else func


def _numbers(args: Sequence[Any]) -> int:
    size = args[0] if args else ()
    if isinstance(size, torch.Tensor):
        return size.numel()
    sides: Any = size
    return torch.Size(sides).numel() if isinstance(size, list | tuple) else 0


def _compute(func: Any, name: str, flat: Sequence[Any], inner: Any, is_blank: bool) -> Any:
    args, kwargs, spec = inner
    values, _ = tree_flatten((args, kwargs))
    halves = (t.dtype for t in values if isinstance(t, torch.Tensor) and t.dtype in HALVES)
    half = next(halves, None) if name in WIDE and not is_blank else None
    with _plain():
        if is_blank:
            return result_of(func, values, spec, lambda: func(*args, **kwargs))
        if half is None:
            return func(*args, **kwargs)
        wide = [_widened(outer, each) for outer, each in zip(flat, values, strict=True)]
        args, kwargs = tree_unflatten(wide, spec)
        out: Any = func(*args, **kwargs)
        if _State.card.noise and name in SUMMING:
            out = out + torch.randn_like(out) * (_State.card.noise * out.abs().mean())
        if isinstance(out, tuple):  # a norm's mean and deviation stay in 32 bits
            first, *others = cast(tuple[Any, ...], out)
            return first.to(half), *others
        return out.to(half)


def _widened(outer: Any, inner: Any) -> Any:
    """In 32 bits; a weight's are kept, since it is replaced and never written to."""
    if not isinstance(inner, torch.Tensor) or inner.dtype not in HALVES:
        return inner
    if not isinstance(outer, torch.nn.Parameter):
        return inner.float()
    weight: Any = outer
    kept: Any = getattr(weight, "wide", None)
    if kept is None or kept[0] is not inner:
        kept = weight.wide = (inner, inner.float())
    return kept[1]


def _blanked(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Any:
    """What is written into has no numbers any more."""
    into = args[0] if args and isinstance(args[0], CardTensor) else kwargs.get("out")
    if not isinstance(into, CardTensor):
        return _all_wrapped(out, {})
    if not into.content.is_meta:
        into.content = _blank(into.content)
    return into


def _all_wrapped(out: Any, known: Mapping[int, CardTensor]) -> Any:
    flat, spec = tree_flatten(out)
    return tree_unflatten([_wrapped(each, known) for each in flat], spec)


def _wrapped(value: Any, known: Mapping[int, CardTensor]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return known[id(value)] if id(value) in known else CardTensor(value)


def _inner(value: Any) -> Any:
    return value.content if isinstance(value, CardTensor) else value


@contextmanager
def _plain() -> Generator[None]:
    with _modes._disable_current_modes(), _C.DisableTorchFunctionSubclass():
        yield


_COMPOSITES: dict[Any, bool] = {}


def _is_composite(func: Any) -> bool:
    if func not in _COMPOSITES:
        has = _C._dispatch_has_kernel_for_dispatch_key
        _COMPOSITES[func] = has(func.name(), "CompositeImplicitAutograd")
    return _COMPOSITES[func]


def _to_copy(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    source, device, card = args[0], kwargs.get("device"), _State.card
    is_ours = isinstance(source, CardTensor)
    to_card = torch.device(device).type == "cuda" if device is not None else is_ours
    dtype = kwargs.get("dtype") or source.dtype
    layout = kwargs.get("memory_format") or torch.preserve_format
    size_bytes = source.numel() * source.element_size()
    inner = _inner(source)
    with _plain():
        if to_card and not is_ours:
            _count_copy(source)
            if not card.has_numbers and source.numel() >= LEAST_BLANK:
                return CardTensor(_blank(source, dtype))
            return CardTensor(source.to(dtype, copy=True))
        if to_card:
            if inner.is_meta:
                return CardTensor(torch.empty_like(inner, dtype=dtype, memory_format=layout))
            return CardTensor(inner.to(dtype, copy=True, memory_format=layout))
        if not kwargs.get("non_blocking"):
            card.wait("copy to the CPU")
        card.returned_bytes += size_bytes
        return (
            torch.zeros(source.shape, dtype=dtype) if inner.is_meta else inner.to(dtype, copy=True)
        )


def _copy(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    into, source, card = args[0], args[1], _State.card
    with _plain():
        if not isinstance(into, CardTensor):
            if not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
                card.wait("copy to the CPU")
            card.returned_bytes += source.numel() * source.element_size()
            into.zero_() if source.content.is_meta else into.copy_(source.content)
            return into
        if not isinstance(source, CardTensor):
            _count_copy(source)
        inner = _inner(source)
        if not into.content.is_meta and not inner.is_meta:
            into.content.copy_(inner)
        return into


def _count_copy(source: torch.Tensor) -> None:
    _State.card.meet("to card", (source,))
    _State.card.copied_bytes += source.numel() * source.element_size()


def _number(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> Any:
    inner = args[0].content
    _State.card.wait("item")
    if inner.is_meta:  # nobody knows: what keeps schedules and samplers going
        return 0.5 if inner.dtype.is_floating_point else 0
    return inner.item()


OPERATIONS: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], Any]] = {
    "is_pinned": lambda _args, _kwargs: False,
    "_to_copy": _to_copy,
    "copy_": _copy,
    "_copy_from": _copy,
    "_local_scalar_dense": _number,
}


def _attention(
    query: Any, key: Any, value: Any, mask: Any = None, *rest: Any, **options: Any
) -> Any:
    """Scaled dot products in one kernel: the table of all pairs never exists."""
    mask = options.pop("attn_mask", mask)
    given = [query, key, value, *([mask] if mask is not None else [])]
    _State.card.meet("attention", given)
    _check("attention", given, given, None)
    inner, is_blank = _inner_arguments(given)
    with _plain():
        if is_blank:
            shape = (*query.shape[:-1], value.shape[-1])
            return CardTensor(torch.empty(shape, dtype=query.dtype, device="meta"))
        wide = [t.float() if t.dtype in HALVES else t for t in inner]
        wide_mask = wide[3] if mask is not None else None
        attend: Any = torch.nn.functional.scaled_dot_product_attention
        out = attend(*wide[:3], wide_mask, *rest, **options)
        return CardTensor(out.to(query.dtype))


def _at(index: Any) -> Any:
    """Lists become tensors of the card."""
    if isinstance(index, tuple):
        return tuple(_at(each) for each in cast(tuple[Any, ...], index))
    return torch.tensor(index).to(DEVICE) if isinstance(index, list) else index


def _get_item(tensor: Any, index: Any) -> Any:
    with _C.DisableTorchFunctionSubclass():
        return torch.Tensor.__getitem__(tensor, _at(index))


def _set_item(tensor: Any, index: Any, value: Any) -> Any:
    """Values cross from one device to another, as `copy_` does."""
    index = _at(index)
    if not isinstance(tensor, CardTensor):
        value = value.to("cpu") if isinstance(value, CardTensor) else value
        flat, spec = tree_flatten(index)
        index = tree_unflatten([i.cpu() if isinstance(i, CardTensor) else i for i in flat], spec)
    elif isinstance(value, torch.Tensor) and not isinstance(value, CardTensor) and value.dim():
        value = value.to(DEVICE)
    with _C.DisableTorchFunctionSubclass():
        return torch.Tensor.__setitem__(tensor, index, value)


def _new_tensor(tensor: Any, data: Any, dtype: Any = None, device: Any = None, **_: Any) -> Any:
    return torch.tensor(data, dtype=dtype or tensor.dtype).to(device or tensor.device)


def _is_finite(values: Any) -> Any:
    """What nobody knows are numbers."""
    if isinstance(values, CardTensor) and values.content.is_meta:
        return CardTensor(torch.ones(values.shape, dtype=torch.bool))
    with _C.DisableTorchFunctionSubclass():
        return torch.isfinite(values)


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.nn.functional.scaled_dot_product_attention: _attention,
    torch.Tensor.__getitem__: _get_item,
    torch.Tensor.__setitem__: _set_item,
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.isfinite: _is_finite,
    torch.isfinite: _is_finite,
}

"""Which of a LoRA's patches ComfyUI can apply to a weight, told by their tensors' shapes alone.

ComfyUI's adapters (comfy/weight_adapter) log what goes wrong in them and leave the weight as it is,
or raise in the middle of sampling. Each rule here follows the shapes through one of them; the tests
try the rules against the adapters themselves. Where ComfyUI would take an odd shape for another
one, as by broadcasting, the patch counts as one that does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

Shape = Sequence[int]  # of a weight, a tuple
Matrix = tuple[int, int]  # rows and columns


class Misfit(ValueError):
    """The tensors don't belong together, or not to the weight."""


def fits(patch: Any, shape: Shape) -> bool:
    """Whether ComfyUI, given this patch, changes a weight of this shape and leaves it its shape."""
    kind: str = getattr(patch, "name", "plain")
    tensors: Iterable[Any] = patch.weights if kind in _RULES else patch[-1]
    try:
        _insist(all(each.numel() for each in tensors if isinstance(each, Tensor)))
        if kind in _RULES:
            _RULES[kind](patch.weights, shape)
        else:
            _insist([each.shape for each in tensors] == [shape])
    except Misfit:
        return False
    return True


def with_whole_core(patch: Any) -> Any:
    """The same patch, in a form that ComfyUI can apply; it is one that `fits`.

    Of a LoKr's right side with a core, ComfyUI makes a tensor that is not contiguous, which torch's
    `kron` refuses. So that side is made here, with its scale in it.
    """
    if getattr(patch, "name", "") != "lokr" or patch.weights[1] is not None:
        return patch
    left, _, alpha, left_a, left_b, right_a, right_b, core, dora_scale = patch.weights
    if core is None:
        return patch
    factors = (each.float() for each in (core, right_b, right_a))
    right = torch.einsum("i j k l, j r, i p -> p r k l", *factors).contiguous()
    right *= 1.0 if alpha is None else alpha / right_b.shape[0]
    whole = (left, right, None, left_a, left_b, None, None, None, dora_scale)
    return type(patch)(patch.loaded_keys, whole)


def _insist(holds: object) -> None:
    if not holds:
        raise Misfit


def _insist_on(change: Matrix, shape: Shape) -> None:
    """The change of a weight has its rows, and as many values; ComfyUI gives it its shape."""
    _insist(len(shape) and change == (shape[0], prod(shape[1:])))


def _matrix(tensor: Tensor | None) -> Matrix:
    """As `flatten(1)` has it: what follows the first axis becomes one."""
    if tensor is None or tensor.ndim < 2:
        raise Misfit
    return tensor.shape[0], tensor[0].numel()


def _plain(tensor: Tensor | None) -> Matrix:
    """Of `torch.mm` and `einsum`, which take nothing but a matrix."""
    if tensor is None or tensor.ndim != 2:
        raise Misfit
    return tensor.shape[0], tensor.shape[1]


def _times(first: Matrix, second: Matrix) -> Matrix:
    _insist(first[1] == second[0])
    return first[0], second[1]


def _cored(core: Tensor, left: Matrix, right: Matrix) -> Matrix:
    """The product of core (i, j, height, width), left (i, rows) and right (j, columns)."""
    _insist(core.ndim == 4 and (left[0], right[0]) == tuple(core.shape[:2]))
    return left[1], right[1] * core[0, 0].numel()


def _fit_norm(dora_scale: Tensor | None, shape: Shape) -> None:
    """DoRA scales rows where its first axis has as many, else columns."""
    if dora_scale is None:
        return
    by_rows = dora_scale.ndim > 0 and dora_scale.shape[0] == shape[0]
    _insist(dora_scale.ndim > 0 and (by_rows or len(shape) > 1))
    _insist_within(dora_scale, shape)


def _insist_within(tensor: Tensor, shape: Shape) -> None:
    """It is broadcast to the shape, and not the other way round."""
    pairs = zip(reversed(tensor.shape), reversed(shape), strict=False)
    _insist(tensor.ndim <= len(shape) and all(own in (1, whole) for own, whole in pairs))


def _lora(weights: Any, shape: Shape) -> None:
    up, down, _, core, dora_scale, new_shape = weights
    _insist(new_shape is None)  # the weight would have another shape than its layer
    lower = _matrix(down)
    if core is not None:
        entries = (down.numel() // down.shape[1], down.shape[1])
        lower = _cored(core, (down.shape[0], down.shape[0]), entries)
    _insist_on(_times(_matrix(up), lower), shape)
    _fit_norm(dora_scale, shape)


def _loha(weights: Any, shape: Shape) -> None:
    first, second, _, third, fourth, core, other_core, dora_scale = weights
    _insist(core is None or core.shape[2:] == other_core.shape[2:])
    _insist_on(_factors(core, first, second), shape)
    _insist_on(_factors(other_core, third, fourth), shape)
    _fit_norm(dora_scale, shape)


def _factors(core: Tensor | None, first: Tensor | None, second: Tensor | None) -> Matrix:
    """A product of two matrices, or of a core and two."""
    if core is None:
        return _times(_plain(first), _plain(second))
    return _cored(core, _plain(first), _plain(second))


def _lokr(weights: Any, shape: Shape) -> None:
    """A Kronecker product; each side is whole, or a product itself."""
    left, right, _, left_a, left_b, right_a, right_b, core, dora_scale = weights
    rows, columns = _plain(left) if left is not None else _factors(None, left_a, left_b)
    if right is None:
        more_rows, more_columns = _factors(core, right_a, right_b)
    else:
        _insist(right.ndim in (2, 4))
        more_rows, more_columns = _matrix(right)
    _insist_on((rows * more_rows, columns * more_columns), shape)
    _fit_norm(dora_scale, shape)


def _glora(weights: Any, shape: Shape) -> None:
    """Two orders of the factors are in use; ComfyUI tells them apart by where the rank is."""
    a1, a2, b1, b2 = (_matrix(tensor) for tensor in weights[:4])
    dora_scale = weights[5]
    heads = tuple(tuple(tensor.shape[:2]) for tensor in weights[:4])
    is_old = heads[3][1] == heads[2][0] == heads[0][0] == heads[1][1]
    is_new = heads[3][0] == heads[2][1] == heads[0][1] == heads[1][0]
    _insist(len(shape) > 1 and (is_old or is_new))
    is_square = heads[1][0] == shape[0] == shape[1]
    if is_old and (not is_new or is_square):
        flat = (shape[0], prod(shape[1:]))
        _insist_on(_times(b2, b1), shape)
        _insist_on(_times(_times(flat, a2), a1), shape)
    else:
        _insist_on(_times(b1, b2), shape)
        _insist(_times(a1, a2) == (shape[1], shape[1]))
    _fit_norm(dora_scale, shape)


def _oft(weights: Any, shape: Shape) -> None:
    blocks, _, _, dora_scale = weights
    _insist(blocks.shape[1] == blocks.shape[2] and len(shape))
    _insist(blocks.shape[0] * blocks.shape[1] == shape[0])
    _fit_norm(dora_scale, shape)


def _boft(weights: Any, shape: Shape) -> None:
    """Butterflies: each of the first axis turns pairs of blocks that lie twice as far apart."""
    blocks, rescale, alpha, dora_scale = weights
    count, blocks_each, side = blocks.shape[:3]
    _insist(alpha is not None and blocks.shape[3] == side and side % 2 == 0 and len(shape))
    _insist(blocks_each * side == shape[0])
    _insist(count < 32 and shape[0] % (2 ** (count - 1) * side) == 0)
    if rescale is not None:
        _insist_within(rescale, shape)
    _fit_norm(dora_scale, shape)


# By ComfyUI's name of the adapter; patches without one are a difference, or the weight itself.
_RULES: dict[str, Callable[[Any, Shape], None]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "glora": _glora,
    "oft": _oft,
    "boft": _boft,
}

"""Whether what a network gives are numbers: a NaN becomes a black pixel once it is a byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from hordelib.errors import NotNumbers


def are_numbers(value: Any) -> bool:
    """Whether all tensors in it are finite, however deep they lie in lists, tuples and mappings."""
    match value:
        case Tensor():
            return _is_finite(value)
        case Mapping():
            return all(map(are_numbers, cast(Mapping[Any, Any], value).values()))
        case list() | tuple():
            return all(map(are_numbers, cast(Sequence[Any], value)))
        case _:
            return True


def _is_finite(values: Tensor) -> bool:
    """Where one of them is no number, neither is their sum, which takes a fraction of the time.

    The sum of numbers may overflow, so that one has to look at each.
    """
    if not values.is_floating_point() or values.is_meta:  # which has no values
        return True
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def watch(network: nn.Module, name: str) -> None:
    """Have the network raise NotNumbers from now on, which calls it by `name`.

    For those of which nobody would see it afterwards, since their results are clamped or cast.
    """

    def look(_network: nn.Module, _inputs: Any, output: Any) -> None:
        insist_on_numbers(output, name)

    for module in _called(network):
        module.register_forward_hook(look)


def _called(network: nn.Module) -> Iterator[nn.Module]:
    """The network; its parts where its class has a call of its own, which knows no hooks."""
    if type(network).__call__ is nn.Module.__call__:
        yield network
    else:
        for part in network.children():
            yield from _called(part)


def watched(function: Callable[[Tensor], Tensor], name: str) -> Callable[[Tensor], Tensor]:
    """The function, which raises NotNumbers before it would take what are none."""

    def look_first(values: Tensor) -> Tensor:
        insist_on_numbers(values, name)
        return function(values)

    return look_first


def insist_on_numbers(value: Any, name: str) -> None:
    """Raises NotNumbers, which says that `name` gave them."""
    if not are_numbers(value):
        raise NotNumbers(name)

"""What is the same in each step of a sampler, made once for all of them.

Every cross-attention layer multiplies the same text with the same weights in each step: its keys
and its values (comfy/ldm/modules/attention.py, CrossAttention). And a ControlNet looks at the same
control map (comfy/cldm/cldm.py, input_hint_block). Both are kept from the first step to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.sample
from comfy.controlnet import ControlNet
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

NAME = "dreamer_step_invariants"
ROOM = 1.5  # of what a step takes by ComfyUI, which it has free before it does both prompts at once

Call = Callable[..., Any]
Conditioning = list[list[Any]]


def sample_custom(
    model: Any, *, positive: Conditioning, negative: Conditioning, **inputs: Any
) -> Tensor:
    """ComfyUI's, of comfy/sample.py, with the same inputs: the same pictures in less time."""
    with _making_once(model, (positive, negative)):
        return comfy.sample.sample_custom(model, positive=positive, negative=negative, **inputs)


@contextmanager
def _making_once(model: Any, conditionings: Iterable[Conditioning]) -> Generator[None]:
    """For one call of a sampler with this ModelPatcher.

    Only UNets have such layers: in other networks the text changes with the picture. Nothing is
    kept that would take of the room of the steps themselves.
    """
    with ExitStack() as stack:
        layers = dict.fromkeys(_layers(model.model.diffusion_model))  # each once
        if layers:
            kept = _Kept(model.model)
            model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, NAME, kept.call_unet)
            stack.callback(model.remove_wrappers_with_key, WrappersMP.DIFFUSION_MODEL, NAME)
            for control_net in _control_nets(conditionings):
                if isinstance(control_net, ControlNet):  # an adapter looks at its map once
                    _stand_in(stack, control_net, "get_control", kept.get_control)
                    layers |= dict.fromkeys(_layers(control_net.control_model))
            for layer in layers:
                _stand_in(stack, layer, "forward", kept.forward)
        yield


def _stand_in(stack: ExitStack, owner: Any, name: str, stand_in: Callable[[Call], Call]) -> None:
    """What the owner's method is until the stack ends."""
    setattr(owner, name, stand_in(getattr(owner, name)))
    stack.callback(owner.__dict__.pop, name)


class _Kept:
    """What layers made, by the prompts: ComfyUI gives each a uuid for the time of a sampling."""

    def __init__(self, model: Any):
        self._model = model
        self._room_bytes: float | None = None
        self._prompts: tuple[Any, ...] = ()  # that the network at work is called with
        self._made: dict[tuple[Any, ...], Tensor] = {}

    def call_unet(self, executor: Call, *inputs: Any, **options: Any) -> Any:
        """In the place of a UNet's call; transformer_options are its last input."""
        with self._called_with(inputs[0], inputs[-1]):
            return executor(*inputs, **options)

    def get_control(self, get_control: Call) -> Call:
        """Of comfy/controlnet.py, with the same first and last input."""

        def kept(*inputs: Any) -> Any:
            with self._called_with(inputs[0], inputs[-1]):
                return get_control(*inputs)

        return kept

    def forward(self, make: Call) -> Call:
        """Of a layer."""

        def kept(*inputs: Any) -> Tensor:
            key = (make, *self._prompts)
            made = self._made.get(key)
            return self._keep(key, make(*inputs)) if made is None else made

        return kept

    @contextmanager
    def _called_with(self, x: Tensor, transformer_options: dict[str, Any]) -> Generator[None]:
        """One network may call another in the block."""
        if self._room_bytes is None:
            step_bytes = ROOM * self._model.memory_required(x.shape)
            self._room_bytes = comfy.model_management.get_free_memory(x.device) - step_bytes
        before = self._prompts
        self._prompts = (*transformer_options["uuids"], *transformer_options["cond_or_uncond"])
        try:
            yield
        finally:
            self._prompts = before

    def _keep(self, key: tuple[Any, ...], made: Tensor) -> Tensor:
        if self._prompts and self._room_bytes and self._room_bytes >= made.nbytes:
            self._room_bytes -= made.nbytes
            self._made[key] = made
        return made


def _control_nets(conditionings: Iterable[Conditioning]) -> Iterator[Any]:
    """Each once; conditionings have them in chains."""
    seen: set[int] = set()
    for _, extra in (entry for conditioning in conditionings for entry in conditioning):
        control_net = extra.get("control")
        while control_net is not None and id(control_net) not in seen:
            seen.add(id(control_net))
            yield control_net
            control_net = control_net.previous_controlnet


_LAYERS: WeakKeyDictionary[nn.Module, list[nn.Module]] = WeakKeyDictionary()


def _layers(network: nn.Module) -> list[nn.Module]:
    """Those that are given the same in each step; none where there is no cross attention."""
    if network not in _LAYERS:
        _LAYERS[network] = list(_found_layers(network))
    return _LAYERS[network]


def _found_layers(network: Any) -> Iterator[nn.Module]:
    for name, module in network.named_modules():
        if isinstance(module, BasicTransformerBlock) and module.attn2 is not None:
            yield module.attn2.to_k
            yield module.attn2.to_v
        elif name == "input_hint_block":
            yield module

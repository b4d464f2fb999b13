"""No node hands on what are not numbers: it tries once more in full precision, or fails.

On a card most networks compute in 16 bits, which overflow where 32 would not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import comfy.ops
import comfy.sd
import execution
import torch
from comfy.controlnet import ControlNet
from comfy.model_base import BaseModel

from hordelib.comfyui.loaders.image_networks import Upscaler
from hordelib.comfyui.loaders.layer_diffuse import TransparentDecoder
from hordelib.errors import NotNumbers
from hordelib.memory.wide_parts import precision_of_the_run
from hordelib.pictures.finite import insist_on_numbers

log = logging.getLogger(__name__)

Conditioning = list[list[Any]]  # ComfyUI's: pairs of a tensor and a dict
Inputs = Mapping[str, list[Any]]  # of a node, as ComfyUI has them: a list for each

# By ComfyUI's type of an input: what computes in a node whose outputs are no numbers.
MODEL_PARTS = {"VAE": "the VAE", "MODEL": "the diffusion model", "CLIP": "the text encoder"}


def install() -> None:
    """ComfyUI executes each node by a function that it looks up in its module at each call."""
    execution.get_output_data = _insisting(execution.get_output_data)


def _insisting(execute: Callable[..., Any]) -> Callable[..., Any]:
    async def get_output_data(
        prompt_id: str, title: str, node: Any, inputs: Inputs, *arguments: Any, **options: Any
    ) -> Any:
        """Raises NotNumbers where the second try gives none either, or would be the same."""
        part = _model_part(node)

        async def outputs() -> Any:
            try:
                done = await execute(prompt_id, title, node, inputs, *arguments, **options)
                insist_on_numbers(done[0], part or f"the node {type(node).__name__}")
            except NotNumbers as error:
                raise NotNumbers(f"{title}: {error.part}") from error
            return done

        narrow, precision = narrow_of(inputs), precision_of_the_run()
        networks = [each.network for each in narrow] if _computes(node) else []
        if not precision.leaves_out(networks):
            try:
                done = await outputs()
            except NotNumbers as error:
                if not narrow:
                    raise
                log.warning("%s; trying again in full precision", error)
            else:
                precision.tried(networks, is_enough=True)
                return done
        with full_precision(narrow):  # what the first try had is let go with its error
            done = await outputs()
        precision.tried(networks, is_enough=False)
        return done

    return get_output_data


def _computes(node: Any) -> bool:
    """Whether the node computes with the models that it takes, rather than hand them on."""
    return bool({"LATENT", "IMAGE"} & set(node.RETURN_TYPES))


def _model_part(node: Any) -> str:
    """Which of the model's own parts the node computes with; "" is none of them."""
    groups = node.INPUT_TYPES()
    kinds = [
        kind for group in ("required", "optional") for kind, *_ in groups.get(group, {}).values()
    ]
    return next((name for kind, name in MODEL_PARTS.items() if kind in kinds), "")


class Computing(NamedTuple):
    """The type that a network computes in; ComfyUI's have it written in an attribute.

    Of others, `attribute` is "", and `owner` is the torch module. `network` is what a patcher has
    of it.
    """

    owner: Any
    attribute: str
    dtype: torch.dtype
    network: Any


def narrow_of(inputs: Inputs) -> list[Computing]:
    """What of a node's inputs computes in less than 32 bits."""
    networks = (each for values in inputs.values() for value in values for each in _networks(value))
    return [each for each in networks if each.dtype.itemsize < torch.float32.itemsize]


def _networks(value: Any) -> Iterator[Computing]:
    """Those behind one input."""
    match value:
        case Upscaler():
            yield Computing(value.model, "", value.network.dtype, value.patcher.model)
        case TransparentDecoder():
            yield Computing(value.network, "", value.dtype, value.patcher.model)
        case comfy.sd.VAE():
            yield Computing(value, "vae_dtype", value.vae_dtype, value.patcher.model)
        case list():
            for net in _control_nets(cast(Conditioning, value)):
                dtype = net.manual_cast_dtype or net.control_model.dtype
                network = net.control_model_wrapped.model
                yield Computing(net, "manual_cast_dtype", dtype, network)
        case _ if isinstance(model := getattr(value, "model", None), BaseModel):
            dtype = model.manual_cast_dtype or model.get_dtype()
            yield Computing(model, "manual_cast_dtype", dtype, model)
        case _:
            pass


def _control_nets(conditioning: Conditioning) -> Iterator[ControlNet]:
    """Those of a conditioning's entries, and those that they follow."""
    for _, extra in conditioning:
        control_net = extra.get("control")
        while isinstance(control_net, ControlNet):
            yield control_net
            control_net = control_net.previous_controlnet


@contextmanager
def full_precision(narrow: Iterable[Computing]) -> Generator[None]:
    """ComfyUI's layers cast their weights to the type of what comes in, one after the other."""
    with ExitStack() as stack:
        _set(stack, comfy.ops.CastWeightBiasOp, "comfy_cast_weights", True)
        for each in narrow:
            if not each.attribute:  # a small network, whose layers are none of ComfyUI's
                stack.callback(each.owner.to, each.dtype)
                each.owner.float()
            else:
                _set(stack, each.owner, each.attribute, torch.float32)
        yield


def _set(stack: ExitStack, owner: Any, name: str, value: object) -> None:
    """Until the stack ends."""
    stack.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)

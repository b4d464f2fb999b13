"""LayerDiffuse: a UNet that draws transparent pictures, and the decoder that finds the opacity."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import comfy.model_management
import torch
import torch.nn.functional as F
from torch import Tensor

from hordelib.comfyui.loaders.image_networks import bring
from hordelib.comfyui.loaders.layer_diffuse import (
    AttentionSharing,
    LayerPatches,
    TransparentDecoder,
)
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.comfyui.nodes.loras import patched
from hordelib.comfyui.nodes.patch_shapes import fits
from hordelib.comfyui.nodes.tiling import circular
from hordelib.errors import AuxiliaryBroken
from hordelib.files.model_key import ModelKey
from hordelib.pictures.transparent_unet import uncover

log = logging.getLogger(__name__)

PATH: tuple[str, dict[str, Any]] = ("STRING", {})
UNET = "diffusion_model."
LEAST_FITTING = 0.95  # of a file's patches; of another family's, next to none fit
_SEEN = "dreamer_attention_input"  # in the options of one block's call


class DreamerLayerPatches:
    """A UNet with LayerDiffuse's patches on its weights, beside those of LoRAs."""

    CATEGORY = "dreamer"
    FUNCTION = "apply"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "path": PATH}, "hidden": HIDDEN_INPUT}

    def apply(self, model: Any, path: str, context: RunContext) -> tuple[Any]:
        """Raises AuxiliaryBroken where the file is not for models of this kind."""
        read: LayerPatches = context.models[ModelKey("layer_patches", Path(path))]
        patches = dict(_fitting(read, model.model))
        if len(patches) < LEAST_FITTING * len(read.patches):
            raise _misfit(Path(path), len(patches), len(read.patches))
        return (patched(model, patches, 1.0, read.reading),)


def _fitting(read: LayerPatches, network: Any) -> Iterator[tuple[str, Any]]:
    """Those of the patches that have their place, by its name."""
    layers = {str(i): name for i, name in enumerate(attention_layers(network.diffusion_model))}
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for said, patch in read.patches.items():
        number, _, rest = said.partition(".")
        name = f"{UNET}{layers[number]}.{rest}" if number in layers else said
        fitting = _padded(patch, shapes.get(name, ()))
        if name in shapes and fits(fitting, shapes[name]):
            yield name, fitting
        else:
            log.warning("%s: %s has no place in this model", read.file, said)


def _padded(patch: Any, shape: tuple[int, ...]) -> Any:
    """A difference of fewer input channels than the weight's: what an inpainting model sees beside
    the latent comes after it.
    """
    if getattr(patch, "name", "") == "lora" or len(shape) < 2:
        return patch
    difference: Tensor = patch[1][0]
    is_narrow = difference.ndim == len(shape) and difference.shape[1] < shape[1]
    if not is_narrow:
        return patch
    more = shape[1] - difference.shape[1]
    return ("diff", (F.pad(difference, (*[0] * (2 * len(shape) - 4), 0, more)),))


def _misfit(path: Path, fitting: int, of: int) -> AuxiliaryBroken:
    told = f"{path.name} is for another kind of model: {fitting} of {of} parts fit"
    return AuxiliaryBroken(path, f"{told}; fetch the one of the job's family")


_STAGES = ("input_blocks", "output_blocks", "middle_block")  # as LayerDiffuse's files have them


def attention_layers(unet: Any) -> list[str]:
    """The names of a UNet's attention layers, in the order in which a file for SD1 counts them."""
    names = [name for name, _ in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
    return sorted(names, key=lambda name: _STAGES.index(name.partition(".")[0]))


class DreamerAttentionSharing:
    """A UNet whose attention layers give what LayerDiffuse adds for SD1, too."""

    CATEGORY = "dreamer"
    FUNCTION = "apply"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "path": PATH}, "hidden": HIDDEN_INPUT}

    def apply(self, model: Any, path: str, context: RunContext) -> tuple[Any]:
        """Raises AuxiliaryBroken where the model has other layers than the file."""
        key = ModelKey("attention_sharing", Path(path))
        shared: AttentionSharing = context.models[key]
        names = attention_layers(model.model.diffusion_model)
        if len(names) != len(shared.layers):
            raise _misfit(key.path, len(names), len(shared.layers))
        by_place = {_place(name): layer for name, layer in zip(names, shared.layers, strict=True)}
        sharing = model.clone()
        for kind in ("attn1", "attn2"):
            sharing.set_model_patch(_remember, f"{kind}_patch")
            sharing.set_model_patch(_Share(kind, by_place, shared.patcher), f"{kind}_output_patch")
        return (sharing,)


Place = tuple[str, int, int, str]  # input, middle or output; number; depth of the transformer; kind


def _place(name: str) -> Place:
    """As ComfyUI tells it to patches: `input_blocks.1.1.transformer_blocks.0.attn1`."""
    stage, number, *_, depth, kind = name.split(".")
    side = stage.partition("_")[0]
    return side, 0 if side == "middle" else int(number), int(depth), kind


def _remember(
    features: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """What an attention layer is given; ComfyUI makes `options` anew for each block's call."""
    options[_SEEN] = features
    return features, context, value


class _Share:
    """Adds to an attention layer's output what LayerDiffuse makes of its input and its output."""

    def __init__(self, kind: str, by_place: Mapping[Place, Any], patcher: Any):
        self._kind = kind
        self._by_place = by_place
        self._patcher = patcher

    def __call__(self, attended: Tensor, options: dict[str, Any]) -> Tensor:
        layer = self._by_place[(*options["block"], options["block_index"], self._kind)]
        return attended + layer(options[_SEEN] + attended)

    def models(self) -> list[Any]:
        """What ComfyUI has on the device while it computes with the UNet."""
        return [self._patcher]

    def __deepcopy__(self, _memo: object) -> _Share:
        """ComfyUI copies a model's options with each clone of it; the network stays the same."""
        return self


class DreamerTransparentDecoder:
    """The decoder's network, which the engine has on loan."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("TRANSPARENT_DECODER",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"path": PATH}, "hidden": HIDDEN_INPUT}

    def take(self, path: str, context: RunContext) -> tuple[TransparentDecoder]:
        return (context.models[ModelKey("transparent_decoder", Path(path))],)


class DreamerTransparentDecode:
    """Pictures and the latents that they were decoded from, to pictures with opacity."""

    CATEGORY = "dreamer"
    FUNCTION = "decode"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "decoder": ("TRANSPARENT_DECODER",),
                "image": ("IMAGE",),
                "samples": ("LATENT",),
                "is_tiling": ("BOOLEAN", {}),
            },
            "hidden": HIDDEN_INPUT,
        }

    @torch.inference_mode()
    def decode(
        self,
        decoder: TransparentDecoder,
        image: Tensor,
        samples: dict[str, Tensor],
        is_tiling: bool,
        context: RunContext,
    ) -> tuple[Tensor]:
        """`image` is (batch, height, width, 3), 0 to 1; the result has 4 channels."""
        bring(circular(decoder.patcher) if is_tiling else decoder.patcher)
        device = comfy.model_management.get_torch_device()
        dtype = decoder.network.conv_in.weight.dtype  # 32 bits in a second try
        done: list[Tensor] = []
        for pixels, latent in zip(image.movedim(-1, 1), samples["samples"], strict=True):
            if context.cancelled.is_set():
                raise comfy.model_management.InterruptProcessingException
            seen, decoded = (each.to(device, dtype) for each in (pixels, latent))
            found = uncover(decoder.network, seen, decoded, decoder.name)
            done.append(found.movedim(0, -1).to(image))
            context.on_step(len(done), len(image))
        return (torch.stack(done),)


class DreamerOpaque:
    """Pictures with an opacity channel that hides nothing behind them."""

    CATEGORY = "dreamer"
    FUNCTION = "add"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    def add(self, image: Tensor) -> tuple[Tensor]:
        """(batch, height, width, 3) to the same with 4 channels."""
        return (F.pad(image, (0, 1), value=1.0),)

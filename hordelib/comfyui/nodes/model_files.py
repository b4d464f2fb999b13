"""ComfyUI's loader nodes without the loading: the engine has the files on loan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hordelib.comfyui.nodes.context import HIDDEN_INPUT, RunContext
from hordelib.files.model_key import ModelKey


class DreamerDiffusionModel:
    """UNETLoader. The weights keep the type that they have in the file."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"unet_name": ("STRING", {}), "weight_dtype": (["default"],)},
            "hidden": HIDDEN_INPUT,
        }

    def take(self, unet_name: str, context: RunContext, **_inputs: Any) -> tuple[Any]:
        return (context.models[ModelKey("diffusion_model", Path(unet_name))],)


class DreamerTextEncoder:
    """CLIPLoader."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"clip_name": ("STRING", {}), "type": ("STRING", {})},
            "hidden": HIDDEN_INPUT,
        }

    def take(self, clip_name: str, type: str, context: RunContext) -> tuple[Any]:
        return (context.models[ModelKey("text_encoder", Path(clip_name), type)],)


class DreamerVae:
    """VAELoader."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("VAE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae_name": ("STRING", {})}, "hidden": HIDDEN_INPUT}

    def take(self, vae_name: str, context: RunContext) -> tuple[Any]:
        return (context.models[ModelKey("vae", Path(vae_name))],)


class DreamerClipVision:
    """The image encoder of a checkpoint: unCLIPCheckpointLoader's last output alone."""

    CATEGORY = "dreamer"
    FUNCTION = "take"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CLIP_VISION",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": ("STRING", {})}, "hidden": HIDDEN_INPUT}

    def take(self, ckpt_name: str, context: RunContext) -> tuple[Any]:
        return (context.models[ModelKey("clip_vision", Path(ckpt_name))],)

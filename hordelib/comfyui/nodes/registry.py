"""All of our node classes, for ComfyUI to know them."""

from __future__ import annotations

from hordelib.comfyui.nodes.background import DreamerStripBackground
from hordelib.comfyui.nodes.control import (
    DreamerAnnotator,
    DreamerControlNet,
    DreamerPlainMap,
    DreamerSeededMaps,
)
from hordelib.comfyui.nodes.endpoints import (
    DreamerCheckpoint,
    DreamerImage,
    DreamerOutput,
    DreamerRepeatImages,
    DreamerSources,
)
from hordelib.comfyui.nodes.face import DreamerFaceFixer
from hordelib.comfyui.nodes.loras import DreamerLora
from hordelib.comfyui.nodes.model_files import (
    DreamerClipVision,
    DreamerDiffusionModel,
    DreamerTextEncoder,
    DreamerVae,
)
from hordelib.comfyui.nodes.qr_code import DreamerQrCode
from hordelib.comfyui.nodes.questions import (
    DreamerAestheticScore,
    DreamerCaption,
    DreamerClipAnswer,
    DreamerPictureReader,
)
from hordelib.comfyui.nodes.sampling import DreamerSampler, DreamerSamplerAdvanced
from hordelib.comfyui.nodes.text import (
    DreamerEmbeddings,
    DreamerEvenChunks,
    DreamerPrompts,
    DreamerText,
)
from hordelib.comfyui.nodes.tiling import DreamerTiledModel, DreamerTiledVae
from hordelib.comfyui.nodes.transparency import (
    DreamerAttentionSharing,
    DreamerLayerPatches,
    DreamerOpaque,
    DreamerTransparentDecode,
    DreamerTransparentDecoder,
)
from hordelib.comfyui.nodes.upscale import DreamerUpscale, DreamerUpscaleModel

NODES: tuple[type, ...] = (
    DreamerAestheticScore,
    DreamerAnnotator,
    DreamerAttentionSharing,
    DreamerCaption,
    DreamerCheckpoint,
    DreamerClipAnswer,
    DreamerClipVision,
    DreamerControlNet,
    DreamerDiffusionModel,
    DreamerFaceFixer,
    DreamerEmbeddings,
    DreamerEvenChunks,
    DreamerImage,
    DreamerLayerPatches,
    DreamerLora,
    DreamerOpaque,
    DreamerPictureReader,
    DreamerPlainMap,
    DreamerSeededMaps,
    DreamerOutput,
    DreamerPrompts,
    DreamerQrCode,
    DreamerRepeatImages,
    DreamerSampler,
    DreamerSamplerAdvanced,
    DreamerUpscale,
    DreamerUpscaleModel,
    DreamerSources,
    DreamerStripBackground,
    DreamerText,
    DreamerTextEncoder,
    DreamerTiledModel,
    DreamerTiledVae,
    DreamerTransparentDecode,
    DreamerTransparentDecoder,
    DreamerVae,
)

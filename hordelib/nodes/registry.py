"""All of our node classes, for ComfyUI to know them."""

from __future__ import annotations

from hordelib.nodes.background import DreamerStripBackground
from hordelib.nodes.control import DreamerAnnotator, DreamerControlNet, DreamerOutline
from hordelib.nodes.endpoints import DreamerCheckpoint, DreamerImage, DreamerOutput, DreamerSources
from hordelib.nodes.face import DreamerFaceFixer
from hordelib.nodes.loras import DreamerLora
from hordelib.nodes.model_files import (
    DreamerClipVision,
    DreamerDiffusionModel,
    DreamerTextEncoder,
    DreamerVae,
)
from hordelib.nodes.qr_code import DreamerQrCode
from hordelib.nodes.repeat import DreamerRepeatImages
from hordelib.nodes.sampling import DreamerSampler
from hordelib.nodes.sampling_range import DreamerSamplerAdvanced
from hordelib.nodes.text import DreamerEmbeddings, DreamerEvenChunks, DreamerPrompts, DreamerText
from hordelib.nodes.tiling import DreamerTiledModel, DreamerTiledVae
from hordelib.nodes.upscale import DreamerUpscale, DreamerUpscaleModel

NODES: tuple[type, ...] = (
    DreamerAnnotator,
    DreamerCheckpoint,
    DreamerClipVision,
    DreamerControlNet,
    DreamerDiffusionModel,
    DreamerFaceFixer,
    DreamerEmbeddings,
    DreamerEvenChunks,
    DreamerImage,
    DreamerLora,
    DreamerOutline,
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
    DreamerVae,
)

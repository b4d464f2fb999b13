"""The nodes that we put in the place of ComfyUI's, and which of them read a model's file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hordelib.files.model_key import CHECKPOINT_PARTS, ModelKey
from hordelib.graph import Graph, Link

# Spines are plain ComfyUI, so that they open and run there; in our process these nodes do the same
# with the model cache, with a seed per image, and with pictures that stay in memory.
OUR_NODES = {
    "CheckpointLoaderSimple": "DreamerCheckpoint",
    "CLIPTextEncode": "DreamerText",
    "CLIPLoader": "DreamerTextEncoder",
    "KSampler": "DreamerSampler",
    "KSamplerAdvanced": "DreamerSamplerAdvanced",
    "RepeatImageBatch": "DreamerRepeatImages",
    "SaveImage": "DreamerOutput",
    "UpscaleModelLoader": "DreamerUpscaleModel",
    "ImageUpscaleWithModel": "DreamerUpscale",
    "UNETLoader": "DreamerDiffusionModel",
    "VAELoader": "DreamerVae",
}


class FileInput(NamedTuple):
    """The kind of file that a loader node takes, and its inputs with the path and the variant."""

    kind: str
    path: str
    variant: str = ""


# Each file that such a node names is on loan while its graph runs.
FILE_INPUTS = {
    "DreamerAnnotator": FileInput("annotator", "weights", "control_type"),
    "DreamerCheckpoint": FileInput("checkpoint", "ckpt_name"),
    "DreamerUpscaleModel": FileInput("upscaler", "model_name"),
    "DreamerFaceFixer": FileInput("face_fixer", "model_name"),
    "DreamerStripBackground": FileInput("background", "model_name"),
    "DreamerClipVision": FileInput("clip_vision", "ckpt_name"),
    "DreamerControlNet": FileInput("control_net", "control_net_name", "base"),
    "DreamerDiffusionModel": FileInput("diffusion_model", "unet_name"),
    "DreamerLora": FileInput("lora", "path"),
    "DreamerLayerPatches": FileInput("layer_patches", "path"),
    "DreamerAttentionSharing": FileInput("attention_sharing", "path"),
    "DreamerTransparentDecoder": FileInput("transparent_decoder", "path"),
    "DreamerPictureReader": FileInput("picture_reader", "weights", "reader"),
    "DreamerTextEncoder": FileInput("text_encoder", "clip_name", "type"),
    "DreamerVae": FileInput("vae", "vae_name"),
}


def model_keys(graph: Graph) -> tuple[ModelKey, ...]:
    """Every file that the graph's loaders name, each once, in the order of the nodes.

    Of a checkpoint only the parts that the graph uses.
    """
    found: dict[ModelKey, None] = {}
    for title in graph.titles:
        file = FILE_INPUTS.get(graph.class_type(title))
        if file is not None:
            path = Path(graph.inputs(title)[file.path])
            found |= {ModelKey(file.kind, path, each): None for each in _variants(graph, title)}
    return tuple(found)


def _variants(graph: Graph, title: str) -> list[str]:
    class_type = graph.class_type(title)
    if class_type == "DreamerCheckpoint":
        parts = enumerate(CHECKPOINT_PARTS)
        return [part for slot, part in parts if any(graph.readers(Link(title, slot)))]
    variant = FILE_INPUTS[class_type].variant
    return [str(graph.inputs(title)[variant]) if variant else ""]

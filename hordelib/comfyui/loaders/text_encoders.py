"""Text encoders alone in a file."""

from __future__ import annotations

from typing import Any

from hordelib.comfyui.loaders.reading import reading
from hordelib.comfyui.loaders.vocabularies import share_vocabulary
from hordelib.errors import ModelBroken
from hordelib.files.model_key import ModelKey

# What ComfyUI takes for each type: for a file that is none, it silently makes an empty CLIP-L.
_TOKENIZERS = {"qwen_image": "QwenImageTokenizer", "lumina2": "ZImageTokenizer"}


def load_text_encoder(key: ModelKey) -> Any:
    """ComfyUI's CLIP object of the file, `key.variant` being CLIPLoader's `type`.

    Raises ModelBroken, naming the file, when it can't be read or is no text encoder of that type.
    """
    import comfy.sd

    kind = comfy.sd.CLIPType[key.variant.upper()]
    with reading(key.path):
        clip = comfy.sd.load_clip(ckpt_paths=[str(key.path)], clip_type=kind)
    if type(clip.tokenizer).__name__ != _TOKENIZERS[key.variant]:
        raise ModelBroken(f"{key.path.name} is not the text encoder of {key.variant} models")
    share_vocabulary(clip.tokenizer)
    return clip

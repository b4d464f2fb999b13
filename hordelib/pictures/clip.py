"""OpenAI's CLIP by transformers: where a picture lies among all that words can say.

The file is the TorchScript archive that OpenAI published. How large its network is, the shapes
tell; the names are OpenAI's and become those of transformers.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from hordelib.pictures.finite import insist_on_numbers
from hordelib.pictures.torchscript import read_torchscript
from hordelib.pictures.transformer_maps import HEAD_WIDTH, built, count

AT_ONCE = 8  # pictures that are looked at together
TEXTS_AT_ONCE = 64
LONGEST = 4  # times as long as high is as much of a picture as is looked at

State = Mapping[str, Tensor]

# OpenAI's names of the parts of a layer, and those of transformers.
_IN_A_LAYER = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OF_PICTURES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",  # transformers' own spelling
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_OF_TEXTS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


@dataclass(frozen=True, slots=True)
class PictureClip:
    """The half of CLIP that looks at pictures: a CLIPVisionModelWithProjection."""

    network: Any
    processor: Any
    name: str  # of its file

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """(pictures, width of CLIP's space), each of length 1, in main memory in 32 bits.

        Pictures are in RGB. Raises NotNumbers.
        """
        parts = [images[i : i + AT_ONCE] for i in range(0, len(images), AT_ONCE)]
        return torch.cat([self._features(part) for part in parts])

    def _features(self, images: Sequence[Image.Image]) -> Tensor:
        like = next(self.network.parameters())
        given = self.processor(
            [_without_far_ends(image) for image in images],
            input_data_format="channels_last",  # else a picture of one pixel is ambiguous
            return_tensors="pt",
        )
        pixels = given.pixel_values.to(like)
        with torch.inference_mode():
            found = self.network(pixels).image_embeds.float().cpu()
        insist_on_numbers(found, self.name)
        return normalize(found, dim=-1)


def _without_far_ends(image: Image.Image) -> Image.Image:
    """CLIP sees the square in the middle; of a picture that is much longer, the processor would
    first enlarge all."""
    width, height = image.size
    most = LONGEST * min(width, height)
    left, top = (max(0, (side - most) // 2) for side in image.size)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


def read_picture_clip(path: Path) -> PictureClip:
    """Raises ModelBroken and ValueError where the file has another network."""
    whole = read_torchscript(path)
    state = {
        name.removeprefix("visual."): value
        for name, value in whole.items()
        if name.startswith("visual.")
    }
    width, _, patch, _ = state["conv1.weight"].shape
    side = math.isqrt(state["positional_embedding"].shape[0] - 1) * patch
    transformers: Any = importlib.import_module("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        patch_size=patch,
        image_size=side,
        projection_dim=state["proj"].shape[1],
        **_layers(state, width),
    )
    renamed = dict(_renamed(state, "vision_model.", _OF_PICTURES))
    renamed["visual_projection.weight"] = state["proj"].T.contiguous()
    network = built(transformers.CLIPVisionModelWithProjection, config, renamed)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return PictureClip(network, processor, path.name)


def encode_texts(path: Path, texts: Sequence[str], tokens: Path) -> Tensor:
    """(texts, width of CLIP's space), each of length 1, computed in main memory in 32 bits.

    `tokens` is the folder of CLIP's tokenizer. Raises what `read_picture_clip` does, and
    NotNumbers.
    """
    transformers: Any = importlib.import_module("transformers")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(tokens), local_files_only=True)
    network = _read_text_clip(transformers, path)
    found: list[Tensor] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = list(texts[start : start + TEXTS_AT_ONCE])
        given = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found.append(network(given.input_ids, given.attention_mask).text_embeds)
    features = torch.cat(found)
    insist_on_numbers(features, path.name)
    return normalize(features, dim=-1)


def _read_text_clip(transformers: Any, path: Path) -> Any:
    whole = read_torchscript(path)
    state = {name: value for name, value in whole.items() if not name.startswith("visual.")}
    tokens, width = state["token_embedding.weight"].shape
    config = transformers.CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=width,
        max_position_embeddings=state["positional_embedding"].shape[0],
        projection_dim=state["text_projection"].shape[1],
        bos_token_id=tokens - 2,  # the last two tokens begin and end a text
        eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
        **_layers(state, width),
    )
    renamed = dict(_renamed(state, "text_model.", _OF_TEXTS))
    renamed["text_projection.weight"] = state["text_projection"].T.contiguous()
    return built(transformers.CLIPTextModelWithProjection, config, renamed)


def _layers(state: State, width: int) -> dict[str, int]:
    block = "transformer.resblocks.{}.mlp.c_fc.weight"
    return {
        "num_hidden_layers": count(state, block),
        "intermediate_size": state[block.format(0)].shape[0],
        "num_attention_heads": max(1, width // HEAD_WIDTH),
    }


def _renamed(state: State, root: str, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if name in names:
            yield root + names[name], value
        elif name.startswith("transformer.resblocks."):
            _, _, number, part = name.split(".", 3)
            layer = f"{root}encoder.layers.{number}."
            if part.startswith("attn.in_proj_"):
                kind = part.removeprefix("attn.in_proj_")
                for which, each in zip(("q", "k", "v"), value.chunk(3), strict=True):
                    yield f"{layer}self_attn.{which}_proj.{kind}", each
            else:
                known, _, kind = part.rpartition(".")
                if known in _IN_A_LAYER:  # an archive may hold masks, too, that nobody needs
                    yield f"{layer}{_IN_A_LAYER[known]}.{kind}", value

"""Says in a sentence what a picture shows: BLIP by transformers.

A file holds weights alone. How large its network is, their shapes tell.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from hordelib.errors import ModelBroken
from hordelib.job.questions import VOCABULARY
from hordelib.pictures.finite import watch
from hordelib.pictures.transformer_maps import HEAD_WIDTH, count
from hordelib.pictures.weights import read_weights

BEAMS = 3
MOST_TOKENS = 40
AT_ONCE = 4  # pictures that are captioned together
SPECIAL = 2  # the last tokens of BLIP's vocabulary begin a text for its decoder and its encoder
MOST_VOCABULARY_BYTES = 4 << 20

_TEXT = "text_decoder.bert."
_LAST = "text_decoder.cls.predictions."
_SAME = {
    f"{_LAST}decoder.bias": f"{_LAST}bias",
    f"{_LAST}decoder.weight": f"{_TEXT}embeddings.word_embeddings.weight",
}


@dataclass(frozen=True, slots=True)
class Captioner:
    """`network` is transformers' BlipForConditionalGeneration."""

    network: Any
    processor: Any
    tokenizer: Any

    def answers(self, images: Sequence[Image.Image]) -> list[str]:
        """A sentence for each picture in RGB. The same picture always has the same one."""
        parts = (images[i : i + AT_ONCE] for i in range(0, len(images), AT_ONCE))
        return [text for part in parts for text in self._captions(part)]

    def _captions(self, images: Sequence[Image.Image]) -> list[str]:
        like = next(self.network.parameters())
        given = self.processor(
            list(images),
            input_data_format="channels_last",  # else a picture of one pixel is ambiguous
            return_tensors="pt",
        )
        pixels = given.pixel_values.to(like)
        with torch.inference_mode():
            tokens = self.network.generate(pixels, num_beams=BEAMS, max_length=MOST_TOKENS)
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]


def read_captioner(path: Path) -> Captioner:
    """From weights as transformers names them; the vocabulary lies beside them.

    Raises ValueError, and what torch raises, where the file has another network.
    """
    transformers: Any = importlib.import_module("transformers")
    words = _vocabulary(path.with_name(VOCABULARY.file))
    state = _completed(dict(read_weights(path)))
    config = _config(transformers, state, words)
    network = transformers.BlipForConditionalGeneration(config).eval()
    missing = network.load_state_dict(state, strict=False).missing_keys
    if missing:  # what is there beside them was written by another version of transformers
        raise ValueError(f"weights of another network: no {', '.join(missing[:3])}")
    watch(network.vision_model, path.name)
    side = config.vision_config.image_size
    return Captioner(
        network,
        transformers.BlipImageProcessor(size={"height": side, "width": side}),
        transformers.BertTokenizer(str(path.with_name(VOCABULARY.file))),
    )


def _completed(state: dict[str, Tensor]) -> Mapping[str, Tensor]:
    """Some files leave out what is in them under another name already."""
    for left_out, same in _SAME.items():
        if same in state:
            state.setdefault(left_out, state[same])
    return state


def _config(transformers: Any, state: Mapping[str, Tensor], words: Sequence[str]) -> Any:
    vision = "vision_model."
    patches = state[f"{vision}embeddings.patch_embedding.weight"]
    width, _, patch, _ = patches.shape
    points = state[f"{vision}embeddings.position_embedding"].shape[1] - 1
    layer, block = f"{vision}encoder.layers.{{}}.", f"{_TEXT}encoder.layer.{{}}."
    tokens, text_width = state[f"{_TEXT}embeddings.word_embeddings.weight"].shape
    if tokens < len(words):
        raise ValueError(f"{len(words)} words for a network of {tokens}")
    return transformers.BlipConfig(
        vision_config={
            "image_size": math.isqrt(points) * patch,
            "patch_size": patch,
            "hidden_size": width,
            "intermediate_size": state[f"{layer}mlp.fc1.weight".format(0)].shape[0],
            "num_hidden_layers": count(state, f"{layer}mlp.fc1.weight"),
            "num_attention_heads": max(1, width // HEAD_WIDTH),
        },
        text_config={
            "vocab_size": tokens,
            "hidden_size": text_width,
            "encoder_hidden_size": width,
            "intermediate_size": state[f"{block}intermediate.dense.weight".format(0)].shape[0],
            "num_hidden_layers": count(state, f"{block}intermediate.dense.weight"),
            "num_attention_heads": max(1, text_width // HEAD_WIDTH),
            "max_position_embeddings": state[f"{_TEXT}embeddings.position_embeddings.weight"].shape[
                0
            ],
            "bos_token_id": tokens - SPECIAL,
            "pad_token_id": words.index("[PAD]"),
            "sep_token_id": words.index("[SEP]"),
        },
    )


def _vocabulary(path: Path) -> list[str]:
    """A token on each line. Raises ModelBroken where it has not BERT's."""
    try:
        with path.open(encoding="utf-8") as file:
            words = file.read(MOST_VOCABULARY_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelBroken(f"{path}: no vocabulary ({error}); fetch it again") from error
    if not {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} <= set(words):
        raise ModelBroken(f"{path}: not BERT's vocabulary; fetch it again")
    return words

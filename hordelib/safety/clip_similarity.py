"""How well texts describe a picture, by OpenAI's CLIP ViT-L/14: what horde_safety judges by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from open_clip import get_tokenizer, load_openai_model
from open_clip.transform import image_transform
from PIL.Image import Image
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import normalize

ARCHITECTURE = "ViT-L-14"
_TEXTS_AT_ONCE = 32


class ClipSimilarity:
    """What an NSFWChecker asks of its interrogator, with the same answers.

    clip_interrogator's own class also wants features of a hundred thousand phrases about artists
    and styles, from files of unknown content, and nobody asks for them here.
    """

    def __init__(self, weights: Path):
        """`weights`: the file that OpenAI published, for the architecture or a smaller one."""
        # By the model's name, open_clip from 3.0 on takes GELU; it was trained with QuickGELU.
        self._clip = load_openai_model(str(weights), precision="fp32", device="cpu").eval()
        self._positions, self._mask = self._clip.positional_embedding, self._clip.attn_mask
        self._to_tensor = image_transform(self._clip.visual.image_size, is_train=False)
        self._to_tokens = get_tokenizer(ARCHITECTURE)
        self._text_features: dict[tuple[str, ...], Tensor] = {}
        self._latest: tuple[Image, Tensor] | None = None

    def image_to_features(self, image: Image) -> Tensor:
        """(1, 768), of length 1. A checker asks twice for each picture; it is computed once."""
        if self._latest is None or self._latest[0] is not image:
            with torch.inference_mode():
                features = self._clip.encode_image(self._to_tensor(image).unsqueeze(0))
            self._latest = image, normalize(features, dim=-1)
        return self._latest[1]

    def similarities(self, image_features: Tensor, text_array: Sequence[str]) -> list[float]:
        """-1 to 1 for each text. Features of the texts are kept: a checker has two lists."""
        key = tuple(text_array)
        if key not in self._text_features:
            self._text_features[key] = self._encoded(key)
        return [float(value) for value in (image_features @ self._text_features[key].T)[0]]

    def _encoded(self, texts: tuple[str, ...]) -> Tensor:
        """(number of texts, 768), each of length 1."""
        tokens = self._to_tokens(list(texts))
        ends = [int(end) for end in tokens.argmax(dim=1)]  # each text's last token is its highest
        by_length = sorted(range(len(texts)), key=ends.__getitem__)
        features: dict[int, Tensor] = {}
        with torch.inference_mode():
            for start in range(0, len(texts), _TEXTS_AT_ONCE):
                part = by_length[start : start + _TEXTS_AT_ONCE]
                encoded = self._encode(tokens[part, : ends[part[-1]] + 1])
                features |= zip(part, encoded, strict=True)
        return normalize(torch.stack([features[n] for n in range(len(texts))]), dim=-1)

    def _encode(self, tokens: Tensor) -> Tensor:
        """(n, 768) from (n, length). No token sees a later one, so that those after the end of a
        text, of which there are some seventy, need not be computed.
        """
        length = tokens.shape[1]
        self._clip.positional_embedding = Parameter(self._positions[:length], requires_grad=False)
        self._clip.attn_mask = self._mask[:length, :length]
        return self._clip.encode_text(tokens)

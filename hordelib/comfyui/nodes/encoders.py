"""Text encoders that take all prompts of a run in one pass, and none twice while it repeats.

ComfyUI's CLIP encoders get a text as chunks of 77 tokens, each of which they encode for itself
(comfy/sd1_clip.py, ClipTokenWeightEncoder). So chunks of many texts can be one batch, and what a
chunk came to can be kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from comfy.clip_model import CLIPTextModel
from comfy.sd1_clip import SDClipModel
from torch import Tensor

KEPT = 64  # chunks of each encoder; 0.2 to 0.4 MB each
AT_ONCE = 32  # chunks of one pass, which take some 50 MB; prompts of twenty jobs could be hundreds

Chunk = tuple[int, ...]


class _Encoded(NamedTuple):
    """In main memory: on a card it would be what no eviction can take off."""

    hidden: Tensor  # (tokens, width)
    pooled: Tensor  # (width)


_MEMORIES: WeakKeyDictionary[SDClipModel, OrderedDict[Any, _Encoded]] = WeakKeyDictionary()


@contextmanager
def encoding_once(clip: Any, company: Iterable[dict[str, Any]]) -> Generator[None]:
    """Have `clip` encode the chunks of `company` (tokens of texts) together with what it is asked.

    Only CLIP's own encoders: the chunks of others have no fixed length.
    """
    encoders = _encoders(clip.cond_stage_model)
    texts = list(company)
    weights = clip.patcher.patches_uuid
    with ExitStack() as stack:
        for name, encoder in encoders:
            key = name.removeprefix("clip_")
            chunks = [_plain(chunk) for text in texts for chunk in text.get(key, ())]
            known = [chunk for chunk in chunks if chunk is not None]
            encoder.encode = _Memory(encoder, known, weights).encode
            stack.callback(encoder.__dict__.pop, "encode", None)
        yield


def _encoders(model: Any) -> list[tuple[str, SDClipModel]]:
    """Those whose chunks all have 77 tokens and know nothing of padding, by ComfyUI's names."""
    return [
        (name, each)
        for name, each in model.named_children()
        if isinstance(each, SDClipModel)
        and isinstance(each.transformer, CLIPTextModel)
        and not each.enable_attention_masks
    ]


class _Memory:
    """Stands in for an encoder's `encode` while one text is encoded."""

    def __init__(self, encoder: SDClipModel, company: list[Chunk], weights: object):
        self._encoder = encoder
        self._company = company
        self._weights = weights
        self._known = _MEMORIES.setdefault(encoder, OrderedDict())

    def encode(self, chunks: list[list[Any]]) -> tuple[Tensor, Tensor]:
        """(chunks, tokens, width) and (chunks, width), as the encoder itself would give them."""
        plain = [_ints(chunk) for chunk in chunks]
        asked = [chunk for chunk in plain if chunk is not None]
        if len(asked) < len(plain):  # with vectors of textual inversions
            return self._encoder(chunks)[:2]
        self._learn([*asked, *self._company])
        found = [self._known[self._key(chunk)] for chunk in asked]
        self._forget_oldest()
        return (
            torch.stack([each.hidden for each in found]),
            torch.stack([each.pooled for each in found]),
        )

    def _learn(self, chunks: list[Chunk]) -> None:
        new = [chunk for chunk in dict.fromkeys(chunks) if self._key(chunk) not in self._known]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            encoded = self._encoder([list(chunk) for chunk in some])[:2]
            hidden, pooled = (each.cpu() for each in encoded)
            for chunk, *known in zip(some, hidden, pooled, strict=True):
                self._known[self._key(chunk)] = _Encoded(*known)

    def _key(self, chunk: Chunk) -> object:
        encoder = self._encoder
        layer = (encoder.layer, encoder.layer_idx, encoder.return_projected_pooled)
        return (self._weights, layer, chunk)

    def _forget_oldest(self) -> None:
        while len(self._known) > KEPT:
            self._known.popitem(last=False)


def _plain(chunk: Iterable[tuple[Any, ...]]) -> Chunk | None:
    return _ints([token for token, *_ in chunk])


def _ints(tokens: Iterable[Any]) -> Chunk | None:
    """The tokens, or None where one of them is a vector."""
    chunk = tuple(tokens)
    return chunk if all(isinstance(token, int) for token in chunk) else None

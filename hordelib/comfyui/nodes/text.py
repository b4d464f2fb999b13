"""Prompts for the model: bounded, with their embeddings, and of one length."""

from __future__ import annotations

import copy
import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hordelib.comfyui.nodes.batches import IMAGES
from hordelib.comfyui.nodes.context import HIDDEN_INPUT, NodeNotes, RunContext, with_notes
from hordelib.comfyui.nodes.encoders import encoding_once
from hordelib.comfyui.nodes.inversions import Inversions
from hordelib.comfyui.versions import embedding_reader
from hordelib.files.embeddings import Widths, fingerprint, resolve
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.prompts import bound

MOST_CHUNKS = 32  # of 75 tokens: 2,400 in all
MOST_WEIGHT = 20.0  # of a word, either way; more is beyond what half precision can hold

KEPT_TEXTS = 64  # of each tokenizer; twenty jobs that share a batch have forty

Conditioning = list[list[Any]]  # ComfyUI's: pairs of (1, tokens, width) and a dict
Tokens = dict[str, list[list[tuple[Any, ...]]]]  # by encoder: chunks of (token or vector, weight)


_KNOWN: WeakKeyDictionary[Any, OrderedDict[str, tuple[Tokens, list[GenMetadata]]]] = (
    WeakKeyDictionary()
)


class DreamerEmbeddings:
    """A text encoder that looks for `embedding:name` in one folder. The one it gets stays as it is.

    ComfyUI keeps the folder in each tokenizer, where all users of the model would share it.
    """

    CATEGORY = "dreamer"
    FUNCTION = "point"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip": ("CLIP",), "folder": ("STRING", {})}}

    @classmethod
    def IS_CHANGED(cls, folder: str, **_inputs: Any) -> str:
        return fingerprint(Path(folder))

    def point(self, clip: Any, folder: str) -> tuple[Any]:
        pointed = clip.clone()
        pointed.tokenizer = copy.copy(clip.tokenizer)
        inversions = Inversions(Path(folder), encoder_widths(clip.tokenizer))
        pointed.tokenizer.inversions = inversions
        for name, part in _tokenizers(clip.tokenizer):
            own = copy.copy(part)
            own.embedding_directory = folder
            take = partial(inversions.take, encoder=part.embedding_key)
            own._try_get_embedding = embedding_reader(take)
            setattr(pointed.tokenizer, name, own)
        return (pointed,)


class DreamerText:
    """CLIPTextEncode, with what it would leave out in silence disclosed."""

    CATEGORY = "dreamer"
    FUNCTION = "encode"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"text": ("STRING", {}), "clip": ("CLIP",)},
            "hidden": HIDDEN_INPUT,
        }

    def encode(self, text: str, clip: Any, context: RunContext) -> dict[str, Any]:
        encoded, notes = _encode(text, clip, context)
        return with_notes((encoded,), NodeNotes(to_all=notes))


class DreamerPrompts:
    """The prompts of several jobs that share a batch: an entry for each, with its `images`.

    `texts` and `images` are JSON lists, in the order of the jobs.
    """

    CATEGORY = "dreamer"
    FUNCTION = "encode"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"texts": ("STRING", {}), "images": ("STRING", {}), "clip": ("CLIP",)},
            "hidden": HIDDEN_INPUT,
        }

    def encode(self, texts: str, images: str, clip: Any, context: RunContext) -> dict[str, Any]:
        encoded = [_encode(text, clip, context) for text in json.loads(texts)]
        entries = [
            [cond, {**extra, IMAGES: count}]
            for (conditioning, _), count in zip(encoded, json.loads(images), strict=True)
            for cond, extra in conditioning
        ]
        return with_notes((entries,), NodeNotes(to_each=[notes for _, notes in encoded]))


def _encode(text: str, clip: Any, context: RunContext) -> tuple[Conditioning, list[GenMetadata]]:
    """Together with all other texts of the run that are not encoded yet."""
    tokens, notes = _tokens(text, clip)
    company = (_tokens(other, clip)[0] for other in context.texts)
    with encoding_once(clip, company):
        encoded: Conditioning = clip.encode_from_tokens_scheduled(tokens)
    return encoded, notes


def _tokens(text: str, clip: Any) -> tuple[Tokens, list[GenMetadata]]:
    """Made once for each text, though each prompt of a run is encoded in company of all others."""
    known = _KNOWN.setdefault(clip.tokenizer, OrderedDict())
    if text not in known:
        known[text] = _tokenized(text, clip)
        if len(known) > KEPT_TEXTS:
            known.popitem(last=False)
    return known[text]


def _tokenized(text: str, clip: Any) -> tuple[Tokens, list[GenMetadata]]:
    bounded, cut = bound(text)
    inversions: Inversions = getattr(clip.tokenizer, "inversions", None) or Inversions(None, {})
    resolved, notes = resolve(bounded, inversions.count)
    tokens: Tokens = clip.tokenize(resolved)
    changes = [*cut, *_shorten(tokens), *_tame(tokens)]
    return tokens, [*notes, *map(_told, changes)]


def _told(change: str) -> GenMetadata:
    return GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, change)


def _tokenizers(tokenizer: Any) -> Iterator[tuple[str, Any]]:
    """The part for each of the model's text encoders, by its attribute's name."""
    parts: dict[str, Any] = tokenizer.__dict__
    for name, part in parts.items():
        if hasattr(part, "embedding_directory"):
            yield name, part


def encoder_widths(tokenizer: Any) -> Widths:
    """How wide the token vectors of each text encoder are, by ComfyUI's name for it."""
    return {part.embedding_key: part.embedding_size for _, part in _tokenizers(tokenizer)}


def _shorten(tokens: Tokens) -> list[str]:
    """Cut every encoder's chunks at the limit; what was changed, in words."""
    longest = max(map(len, tokens.values()))
    for encoder, chunks in tokens.items():
        tokens[encoder] = chunks[:MOST_CHUNKS]
    cut = f"a prompt of {longest} chunks of 75 tokens was cut after {MOST_CHUNKS}"
    return [cut] if longest > MOST_CHUNKS else []


def _tame(tokens: Tokens) -> list[str]:
    """Bring every weight within the limit; what was changed, in words."""
    wild = [
        (chunk, i)
        for chunks in tokens.values()
        for chunk in chunks
        for i, (_, weight, *_) in enumerate(chunk)
        if not abs(weight) <= MOST_WEIGHT
    ]
    for chunk, i in wild:
        token, weight, *rest = chunk[i]
        tamed = 1.0 if math.isnan(weight) else math.copysign(MOST_WEIGHT, weight)
        chunk[i] = (token, tamed, *rest)
    return [f"weights in a prompt beyond {MOST_WEIGHT:g} were brought down to it"] if wild else []


class DreamerEvenChunks:
    """Two prompts of one length, so that ComfyUI runs the UNet once a step for both of them.

    Where one is a multiple of the other, the shorter is repeated: for cross attention, tokens that
    come twice change nothing. Else the shorter is padded with `empty`, the encoded empty prompt,
    which is not even encoded unless it is needed.
    """

    CATEGORY = "dreamer"
    FUNCTION = "even"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("CONDITIONING", "CONDITIONING")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        both = {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}
        return {"required": {**both, "empty": ("CONDITIONING", {"lazy": True})}}

    def check_lazy_status(
        self, positive: Conditioning, negative: Conditioning, empty: Conditioning | None = None
    ) -> list[str]:
        pairs = zip(positive, negative, strict=True)
        all_fit = all(_fits(cond, uncond) for (cond, _), (uncond, _) in pairs)
        return [] if all_fit or empty is not None else ["empty"]

    def even(
        self, positive: Conditioning, negative: Conditioning, empty: Conditioning | None = None
    ) -> tuple[Conditioning, Conditioning]:
        """Each job's two prompts for themselves: entry i of both belongs to the same job."""
        even_positive: Conditioning = []
        even_negative: Conditioning = []
        for (cond, extra), (uncond, unextra) in zip(positive, negative, strict=True):
            length = max(cond.shape[1], uncond.shape[1])
            even_positive.append([stretch(cond, length, empty), extra])
            even_negative.append([stretch(uncond, length, empty), unextra])
        return even_positive, even_negative


def _fits(cond: Tensor, uncond: Tensor) -> bool:
    """Whether one's length is a multiple of the other's."""
    shorter, longer = sorted((cond.shape[1], uncond.shape[1]))
    return not longer % shorter


def stretch(cond: Tensor, length: int, empty: Conditioning | None) -> Tensor:
    """`cond` (1, tokens, width) with `length` tokens: repeated, or padded with the empty prompt."""
    repeats, rest = divmod(length, cond.shape[1])
    if not rest:
        return cond.repeat(1, repeats, 1) if repeats > 1 else cond
    assert empty is not None
    chunk: Tensor = empty[0][0]
    padding = chunk.repeat(1, (length - cond.shape[1]) // chunk.shape[1], 1)
    return torch.cat([cond, padding], dim=1)

"""Tokenizers' vocabularies, which are the same for all text encoders of a kind: 30 MB for CLIP."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

_KNOWN: WeakValueDictionary[str, Any] = WeakValueDictionary()


def share_vocabulary(tokenizer: Any) -> None:
    """Let the parts of a ComfyUI tokenizer use the vocabularies that others have loaded already."""
    parts: dict[str, Any] = tokenizer.__dict__
    for part in parts.values():
        folder: str = getattr(getattr(part, "tokenizer", None), "name_or_path", "")
        if folder:
            known = _KNOWN.setdefault(folder, part)
            part.tokenizer, part.inv_vocab = known.tokenizer, known.inv_vocab

"""Which words of our own lists describe a picture best, by CLIP; docs/jobs.md names their sources.

What CLIP makes of the words takes a minute to compute, so that it is kept in a file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hordelib.errors import ModelBroken
from hordelib.files.safetensors_header import read_header
from hordelib.files.whole_files import write_whole

log = logging.getLogger(__name__)

FOLDER = Path(__file__).with_name("word_lists")
# How a word of a list is put to CLIP; the answer has the word alone.
PHRASES = {"artists": "art by {}", "sites": "a picture from {}"}
BEST = 5  # of each list are told
SHARPNESS = 100.0  # of CLIP's cosines before the softmax: OpenAI's own logit scale

Encode = Callable[[Sequence[str]], Tensor]
Lists = Mapping[str, tuple[str, ...]]


@cache
def word_lists() -> Lists:
    """Each list by its name, in the order of its file; lines with # are about the list."""
    return {path.stem: tuple(_words(path)) for path in sorted(FOLDER.glob("*.txt"))}


@dataclass(frozen=True, slots=True)
class WordLists:
    """`features` are, for each list, (its words, width of CLIP's space), each of length 1."""

    lists: Lists
    features: Mapping[str, Tensor]

    @property
    def host_bytes(self) -> int:
        return sum(each.nbytes for each in self.features.values())

    def answers(self, features: Tensor) -> list[dict[str, list[dict[str, Any]]]]:
        """For each row of (pictures, width) the best words of each list, with their confidence.

        Confidence is a percentage of its list: 100 · softmax(100 · cosine).
        """
        shares = {
            name: 100 * (SHARPNESS * features @ known.T.float()).softmax(-1)
            for name, known in self.features.items()
        }
        return [
            {name: _best(self.lists[name], share[i]) for name, share in shares.items()}
            for i in range(len(features))
        ]


def encoded_lists(lists: Lists, encode: Encode, of: str, kept: Path) -> WordLists:
    """What CLIP makes of the words: from the file `kept`, or computed and kept there.

    `of` tells CLIP's weights from others. A file that is of other words or weights, or broken, is
    written anew; one that can't be written costs the time of computing the next time.
    """
    told = {"words": _digest(lists), "weights": of}
    features = _read(kept, told, lists)
    if features is None:
        log.info("computing what CLIP makes of %d words", sum(map(len, lists.values())))
        features = {name: _encoded(name, words, encode) for name, words in lists.items()}
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, safetensors.torch.save(features, told))
        except OSError as error:
            log.warning("%s could not be kept: %s", kept, error)
    return WordLists(lists, features)


def _encoded(name: str, words: Sequence[str], encode: Encode) -> Tensor:
    phrase = PHRASES.get(name, "{}")
    return encode([phrase.format(word) for word in words]).half()


def _read(kept: Path, told: Mapping[str, str], lists: Lists) -> dict[str, Tensor] | None:
    if not kept.is_file():
        return None
    try:
        read_header(kept)
        with safe_open(kept, "pt") as file:
            if file.metadata() != told:
                return None
            features = {name: file.get_tensor(name) for name in lists}
    except (ModelBroken, SafetensorError, OSError) as error:
        log.warning("%s is computed anew: %s", kept, error)
        return None
    whole = all(len(features[name]) == len(words) for name, words in lists.items())
    return features if whole else None


def _best(words: Sequence[str], shares: Tensor) -> list[dict[str, Any]]:
    found = shares.topk(min(BEST, len(words)))
    pairs = zip(map(int, found.indices), map(float, found.values), strict=True)
    return [{"text": words[i], "confidence": round(share, 2)} for i, share in pairs]


def _digest(lists: Lists) -> str:
    return sha256(repr((sorted(lists.items()), sorted(PHRASES.items()))).encode()).hexdigest()


def _words(path: Path) -> list[str]:
    lines = path.read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

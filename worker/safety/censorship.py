"""Which pictures leave as they are, and what goes in the place of the others. Pure policy."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from hordelib.job.images import Picture
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.safety.verdict import Verdict

_BETWEEN_WORDS = re.compile(r"[\W_]+")
# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt), which nobody sees.
_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_MOST_ACCENTS = 30  # on one letter, as in Unicode's stream-safe text (UAX 15)
_LATE_TEXTS = 256  # prompts and words of the list that are kept as they are compared


class Cause(StrEnum):
    """Why a picture is replaced; the value is written on the card."""

    CSAM = "flagged as forbidden content"
    WORD = "censored words in the prompt"
    NSFW = "not safe for work"


@dataclass(frozen=True, slots=True)
class Replaced:
    """The picture does not leave; a card with `cause` does, and `note` tells the horde."""

    cause: Cause
    note: GenMetadata


@dataclass(frozen=True, slots=True)
class AsItIs:
    """The picture may leave."""


Outcome = AsItIs | Replaced


@dataclass(frozen=True, slots=True)
class Censorship:
    """What the owner wants censored (bridgeData.yaml); CSAM always is."""

    nsfw: bool = True
    censor_nsfw: bool = False
    censorlist: tuple[str, ...] = ()

    def outcome(self, prompt: str, *, use_nsfw_censor: bool, verdict: Verdict) -> Outcome:
        """What becomes of a picture of `prompt`, with the negative one after `###`.

        `use_nsfw_censor` is the payload's: its client wants no NSFW pictures.
        """
        no_nsfw = use_nsfw_censor or self.censor_nsfw or not self.nsfw
        if verdict.csam:
            return _replaced(Cause.CSAM, MetadataValue.CSAM)
        if any(asks_for(prompt, words) for words in self.censorlist):
            return _replaced(Cause.WORD, MetadataValue.NSFW, "a word of the worker's censorlist")
        if verdict.nsfw and no_nsfw:
            return _replaced(Cause.NSFW, MetadataValue.NSFW)
        return AsItIs()


def asks_for(prompt: str, words: str) -> bool:
    """Whether the positive prompt holds a word or a phrase: whole words, in any letter case.

    Whatever stands between words counts as a space, and letters that can't be seen count as
    nothing, so "(red) SPIDERS" has "red spiders" in it and not "spider".
    """
    return f" {_words(words)} " in f" {_words(prompt.partition('###')[0])} "


@lru_cache(_LATE_TEXTS)
def _words(text: str) -> str:
    """Folded to plain letters and single spaces; once for all pictures of a job."""
    folded = unicodedata.normalize("NFKC", _without_hidden(text)).casefold()
    return _BETWEEN_WORDS.sub(" ", folded).strip()


def _without_hidden(text: str) -> str:
    """Without letters that nobody sees, which would part a word, and endless piles of accents.

    To bring accents into order takes NFKC the square of their number.
    """
    kept: list[str] = []
    accents = 0
    for letter in _HIDDEN.sub("", text):
        accents = accents + 1 if unicodedata.combining(letter) else 0
        if accents <= _MOST_ACCENTS and unicodedata.category(letter) != "Cf":
            kept.append(letter)
    return "".join(kept)


def _replaced(cause: Cause, value: MetadataValue, ref: str | None = None) -> Replaced:
    """The horde knows no other values than these two (facts of its submit endpoint)."""
    return Replaced(cause, GenMetadata(MetadataType.CENSORSHIP, value, ref))


BACKGROUND = (38, 40, 46)
FRAME = (112, 116, 128)
TEXT = (226, 228, 234)
LEAST_TEXT = 5  # pixels; what would be smaller can't be read


def censor_card(censored: Picture, cause: Cause) -> Picture:
    """A card as large as the picture, with its seed, and nothing else of it."""
    card = Image.new("RGB", (censored.width, censored.height), BACKGROUND)
    draw = ImageDraw.Draw(card)
    side = min(card.size)
    margin = side // 16
    frame = (margin, margin, card.width - 1 - margin, card.height - 1 - margin)
    draw.rectangle(frame, outline=FRAME, width=max(1, side // 128))
    room = card.width - 4 * margin
    centre = card.width / 2
    _write(draw, (centre, card.height / 2), "CENSORED", "md", room, side / 7)
    _write(draw, (centre, card.height / 2 + margin), cause.value, "ma", room, side / 16)
    return replace(censored, mode="RGB", pixels=card.tobytes())


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    anchor: str,
    room: float,
    size: float,
) -> None:
    """One line, in `size` pixels or as small as it has to be to fit into `room`."""
    wide = ImageFont.load_default(size).getlength(text)
    fitting = size * min(1, room / wide)
    if fitting >= LEAST_TEXT:
        draw.text(at, text, TEXT, ImageFont.load_default(fitting), anchor)

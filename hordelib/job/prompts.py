"""Prompts as clients write them, made into the text that is encoded. Pure.

In the order of the horde's own engine: choices of words, then textual inversions, then triggers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random
from typing import Literal

CLOSE_ENOUGH = 0.65  # of difflib's ratio, for a trigger that is spelt differently
LONGEST_PROMPT = 12_000  # characters; about what 32 chunks of 75 tokens hold in English
LONGEST_WORD = 1_000  # characters; the time that CLIP's tokenizer takes grows with the square
DEEPEST_NESTING = 30  # parentheses; each multiplies the weight by 1.1, 30 of them by 17

_ESCAPED = re.compile(r"\\([{}|])")
_CHOICES = re.compile(r"\\.|[{}|]|[^\\{}|]+|\\", re.DOTALL)
_PARENTHESES = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD}}}(?=\S)")


@dataclass(frozen=True, slots=True)
class PlacedTi:
    """A textual inversion that is on disk: the stem of its file, and the prompt to write it into.

    "" leaves it to the client to write `embedding:stem` into a prompt.
    """

    stem: str
    inject_ti: Literal["prompt", "negprompt", ""] = ""
    strength: float = 1.0


def complete_prompts(
    prompt: str, negative_prompt: str, seed: int, tis: Iterable[PlacedTi], triggers: Iterable[str]
) -> tuple[str, str]:
    """The job's two prompts with everything in place that it asks for, in the horde's order."""
    draws = Random(seed)
    positive, negative = choose_words(prompt, draws), choose_words(negative_prompt, draws)
    for ti in tis:
        positive, negative = write_ti(positive, negative, ti)
    return prepend_triggers(positive, triggers), negative


# ---- choices of words ------------------------------------------------------------------------


class _Alternative(list["str | _Alternative"]):
    """The pieces of one alternative, some of which are alternatives that were chosen inside it."""


_Group = list[_Alternative]  # of one pair of braces, in their order


def choose_words(text: str, draws: Random) -> str:
    r"""Replace each `{a|b}` by one of its alternatives, the innermost ones first.

    One choice for the whole job: all its images share their prompts. `{a}` is `a`, `{}` and braces
    without a partner stay as they are, and `\{`, `\|`, `\}` are the plain characters. The time
    that it takes grows with the text's length, whatever the text is: no piece is copied twice.

    >>> choose_words("a {red|{dark|light} blue} cat", Random(1))
    'a red cat'
    """
    groups: list[_Group] = [[_Alternative()]]  # the first one is the text itself
    for piece in _CHOICES.findall(text):
        inside = len(groups) > 1
        if piece == "{":
            groups.append([_Alternative()])
        elif piece == "|" and inside:
            groups[-1].append(_Alternative())
        elif piece == "}" and inside:
            closed = groups.pop()
            groups[-1][-1].append("{}" if closed == [[]] else draws.choice(closed))
        else:
            groups[-1][-1].append(_ESCAPED.sub(r"\1", piece))
    return "{".join("|".join(map(_written, group)) for group in groups)  # all but one unclosed


def _written(alternative: _Alternative) -> str:
    return "".join(_pieces(alternative))


def _pieces(alternative: _Alternative) -> Iterator[str]:
    """All pieces in their order, however deep the alternatives lie in each other."""
    open_ones = [iter(alternative)]
    while open_ones:
        piece = next(open_ones[-1], None)
        if piece is None:
            open_ones.pop()
        elif isinstance(piece, str):
            yield piece
        else:
            open_ones.append(iter(piece))


# ---- textual inversions and triggers ---------------------------------------------------------


def write_ti(positive: str, negative: str, ti: PlacedTi) -> tuple[str, str]:
    """Both prompts with the textual inversion at the start of one, or at the end of the other."""
    reference = f"(embedding:{ti.stem}:{ti.strength:g})"
    match ti.inject_ti:
        case "prompt":
            return f"{reference},{positive}", negative
        case "negprompt":
            return positive, f"{negative},{reference}".removeprefix(",")
        case _:
            return positive, negative


def pick_trigger(wanted: str, triggers: Sequence[str], draws: Random) -> str:
    """The trigger words that a job wants of a LoRA's; "" where there are none like that.

    `any` is one of them, drawn; `all` is all of them. Anything else is looked for: the same word in
    any case, then one that contains it, then the closest spelling.
    """
    if not wanted or not triggers:
        return ""
    match wanted.lower():
        case "any":
            return draws.choice(triggers)
        case "all":
            return ", ".join(triggers)
        case word:
            return _find_trigger(word, triggers)


def _find_trigger(word: str, triggers: Sequence[str]) -> str:
    by_word = {trigger.lower(): trigger for trigger in triggers}
    containing = [trigger for trigger in by_word if word in trigger]
    close = get_close_matches(word, by_word, n=1, cutoff=CLOSE_ENOUGH)
    found = [word] if word in by_word else containing or close
    return by_word[found[0]] if found else ""


def prepend_triggers(prompt: str, triggers: Iterable[str]) -> str:
    """The last one comes first, as the horde's engine puts each before what is there."""
    for trigger in triggers:
        if trigger:
            prompt = f"{trigger}, {prompt}"
    return prompt


# ---- bounds ----------------------------------------------------------------------------------


def bound(text: str) -> tuple[str, tuple[str, ...]]:
    """A text that is encoded in bounded time, and what was changed about it, in words.

    ComfyUI's parser recurses once per parenthesis, and CLIP's tokenizer takes the square of a
    word's length.
    """
    short = text[:LONGEST_PROMPT]
    flat = _flatten(short)
    changes: list[str] = []
    if len(short) < len(text):
        changes.append(f"a prompt of {len(text)} characters was cut after {LONGEST_PROMPT}")
    if flat != short:
        changes.append(f"parentheses nested deeper than {DEEPEST_NESTING} were left out")
    return _LONG_WORD.sub(r"\g<0> ", flat), tuple(changes)


def _flatten(text: str) -> str:
    """Without the parentheses below the deepest nesting; what they hold stays."""
    depth = 0
    kept: list[str] = []
    for piece in _PARENTHESES.findall(text):
        depth -= piece == ")" and depth > 0
        if piece not in ("(", ")") or depth < DEEPEST_NESTING:
            kept.append(piece)
        depth += piece == "("
    return "".join(kept)

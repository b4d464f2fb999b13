"""From the words of bridgeData.yaml to names of models: what is offered, and what is never.

Pure: the reference's rows, how often each model is used and how long its queue is are arguments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hordelib.job.families import (
    ANIMA,
    CASCADE,
    FLUX,
    FLUX_DEV,
    KREA2,
    QWEN_IMAGE,
    SD1,
    SD2,
    SDXL,
    Z_IMAGE,
)
from worker.config.values import is_word
from worker.models.reference import ReferenceEntry

UNCOUNTED = "can't be counted: the horde did not say how often models are used"
MOST_MODELS = 300  # that the horde takes of one worker (POST generate/pop)
# What only names choose, and words only where `load_large_models` says so.
_LARGE_FAMILIES = (CASCADE, FLUX, FLUX_DEV, QWEN_IMAGE, Z_IMAGE, KREA2, ANIMA)
LARGE = frozenset(family.name for family in _LARGE_FAMILIES)
STYLES = ("generalist", "artistic", "realistic", "anime", "furry", "other")
STICKINESS = 2.0  # a model on offer counts as if its queue were so many times longer


@dataclass(frozen=True, slots=True)
class Candidates:
    """What there is to choose from.

    `entries` are the reference's models in its order; `uses` how many pictures each made in a
    month, None where the horde could not be asked; `own` are names that have a file here although
    no reference lists them.
    """

    entries: Sequence[ReferenceEntry]
    uses: Mapping[str, int] | None = None
    own: frozenset[str] = frozenset()
    with_large: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Names, each once, and a line for each group that chose nothing."""

    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


Pick = Callable[[str, Sequence[ReferenceEntry], Mapping[str, int]], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Group:
    """A group that stands for models: how it is written, and what it picks from rows and uses."""

    shown: str
    pattern: re.Pattern[str]
    pick: Pick
    asks_uses: bool = False


def choose(wanted: Sequence[str], skipped: Sequence[str], candidates: Candidates) -> Choice:
    """The names that `wanted` comes to, in its order, without those of `skipped`.

    A number counts after the skipped ones are gone: "top 2" is two models. A name that nobody
    knows, or a group that can't be read, is a problem that says what to write instead.
    """
    left_out, skip_problems = _expand("models_to_skip", skipped, candidates, known=None)
    servable = [entry for entry in candidates.entries if _may_be_meant(entry, candidates)]
    left = [entry for entry in servable if entry.name not in left_out]
    known = candidates.own | {entry.name for entry in candidates.entries}
    names, problems = _expand("models_to_load", wanted, replace(candidates, entries=left), known)
    kept = [name for name in names if name not in left_out]
    if len(kept) > MOST_MODELS:
        problems = (*problems, _too_many(len(kept)))
    return Choice(tuple(kept[:MOST_MODELS]), (*skip_problems, *problems))


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that was meant, as "; did you mean …?", or "" where none is near."""
    known = {each.casefold(): each for each in names}
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    return f"; did you mean {known[near[0]]!r}?" if near else ""


def dynamic_choice(
    queues: Mapping[str, float], held: Sequence[str], count: int, allowed: Iterable[str]
) -> tuple[str, ...]:
    """The `count` models with the longest queues, those first that wait longest.

    One that is `held` stays until another's queue is STICKINESS times longer than its own, so that
    two models with much the same queue do not take turns. One without a queue stays only where
    nobody else has one either.
    """
    ranks = {
        name: queues.get(name, 0.0) * (STICKINESS if name in held else 1.0)
        for name in dict.fromkeys(allowed)
    }
    candidates = [name for name, rank in ranks.items() if rank > 0 or name in held]
    return tuple(sorted(candidates, key=lambda name: -ranks[name])[:count])


# ---- the words -------------------------------------------------------------------------------


def _top(number: str, rows: Sequence[ReferenceEntry], uses: Mapping[str, int]) -> Iterable[str]:
    return _by_uses(rows, uses)[: int(number)]


def _bottom(number: str, rows: Sequence[ReferenceEntry], uses: Mapping[str, int]) -> Iterable[str]:
    return _by_uses(rows, uses)[::-1][: int(number)]


def _by_uses(rows: Sequence[ReferenceEntry], uses: Mapping[str, int]) -> list[str]:
    return sorted((row.name for row in rows), key=lambda name: -uses.get(name, 0))


def _every(is_meant: Callable[[ReferenceEntry], bool]) -> Pick:
    return lambda _, rows, __: [row.name for row in rows if is_meant(row)]


def _all(what: str, is_meant: Callable[[ReferenceEntry], bool]) -> Group:
    shown = f"all {what} models".replace("  ", " ")
    pattern = rf"all{f' {what}' if what else ''}( models?)?"
    return Group(shown, re.compile(pattern, re.IGNORECASE), _every(is_meant))


def _number(what: str, pick: Pick) -> Group:
    pattern = re.compile(rf"{what} (?P<number>[1-9]\d{{0,3}})( models?)?", re.IGNORECASE)
    return Group(f"{what} 10", pattern, pick, asks_uses=True)


def _of_family(name: str) -> Callable[[ReferenceEntry], bool]:
    return lambda row: row.baseline == name


def _of_style(style: str) -> Callable[[ReferenceEntry], bool]:
    return lambda row: row.style == style


WORDS = (
    _number("top", _top),
    _number("bottom", _bottom),
    _all("", lambda _: True),
    _all("sfw", lambda row: not row.is_nsfw),
    _all("nsfw", lambda row: row.is_nsfw),
    _all("inpainting", lambda row: row.inpaints),
    _all("sd15", _of_family(SD1.name)),
    _all("sd21", _of_family(SD2.name)),
    _all("sdxl", _of_family(SDXL.name)),
    *(_all(style, _of_style(style)) for style in STYLES),
)
_NO_USES: Mapping[str, int] = MappingProxyType({})


def _expand(
    key: str, texts: Sequence[str], candidates: Candidates, known: frozenset[str] | None
) -> tuple[dict[str, None], tuple[str, ...]]:
    """Names in the order of `texts`, and problems. A name must be `known`, where that is given."""
    names: dict[str, None] = {}
    problems: list[str] = []
    for text in texts:
        group = next((group for group in WORDS if group.pattern.fullmatch(text.strip())), None)
        problem = _objection(text, group, candidates, known)
        if problem:
            problems.append(f"{key}: {text!r} {problem}")
        else:
            names |= dict.fromkeys(_picked(text, group, candidates) if group else (text,))
    return names, tuple(problems)


def _picked(text: str, group: Group, candidates: Candidates) -> Iterable[str]:
    match = group.pattern.fullmatch(text.strip())
    number = match.groupdict().get("number") if match else None
    return group.pick(number or "", candidates.entries, candidates.uses or _NO_USES)


def _objection(
    text: str, group: Group | None, candidates: Candidates, known: frozenset[str] | None
) -> str:
    """Why a text chooses nothing; "" where it does."""
    if group is not None and group.asks_uses and candidates.uses is None:
        return UNCOUNTED
    if group is not None or (known and text in known):
        return ""
    if is_word(text):
        groups = ", ".join(group.shown for group in WORDS)
        return f"is no group of models{nearest(text, _shown())} (groups: {groups})"
    if known is None:
        return ""
    return f"is not in the model reference, and no file is called so{nearest(text, known)}"


def _shown() -> Iterable[str]:
    for group in WORDS:
        yield group.shown
        yield group.shown.removesuffix(" models")


def _may_be_meant(entry: ReferenceEntry, candidates: Candidates) -> bool:
    """Whether a group may choose it: approved, of a family that is served, and not too large."""
    fits = candidates.with_large or entry.baseline not in LARGE
    return fits and bool(entry.baseline) and not entry.is_pending


def _too_many(count: int) -> str:
    return f"models_to_load: {count} models, and the horde takes {MOST_MODELS}: the others are not"

"""LoRA files and textual inversions: what is known of each, and which one a job means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

SUFFIX = ".safetensors"  # no other format: a pickle runs code when it is read
RECORD = ".dreamer.json"
_SHORTEST_PREFIX = 3  # letters
_CLOSE = 0.85  # of difflib's ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRecord:
    """What is known of a file. Ids of 0: the owner's own file, of which only the name is known."""

    name: str  # of the model at CivitAI
    model_id: int = 0
    version_id: int = 0
    version_name: str = ""
    base_model: str = ""  # as CivitAI calls it
    triggers: tuple[str, ...] = ()
    sha256: str = ""
    size_bytes: int = 0
    mtime_ns: int = 0  # of the file when it was known to be right


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file that is there. A prompt's `embedding:` calls a textual inversion by `path.stem`."""

    path: Path
    about: LoraRecord

    @property
    def is_ours(self) -> bool:
        """Whether it was downloaded, and so may be removed."""
        return self.about.version_id != 0

    @property
    def record(self) -> Path:
        """Where it lies beside a file that is ours."""
        return self.path.with_name(self.path.stem + RECORD)

    @property
    def used_at(self) -> float:
        """When a job needed it last, in seconds since 1970 UTC; 0 where nobody knows."""
        try:
            return self.record.stat().st_mtime if self.is_ours else 0.0
        except OSError:
            return 0.0


Choice = Callable[[Sequence[LoraFile]], LoraFile | None]
Fits = Callable[[str], bool]  # of a base model


def of_version(version_id: int) -> Choice:
    """The file of one version at CivitAI."""
    return lambda files: next(
        (file for file in files if file.is_ours and file.about.version_id == version_id), None
    )


def owners(name: str) -> Choice:
    """The owner's file of exactly this name, whatever its case."""
    return lambda files: next(
        (
            file
            for file in files
            if not file.is_ours and file.about.name.casefold() == name.casefold()
        ),
        None,
    )


def of_model(model_id: int, fits: Fits) -> Choice:
    """The newest of the model's files whose base model fits."""
    return lambda files: _newest(
        file for file in files if file.about.model_id == model_id and fits(file.about.base_model)
    )


def named(name: str, fits: Fits) -> Choice:
    """The newest file of exactly this name, whatever its case, whose base model fits."""
    return lambda files: _newest(
        file
        for file in files
        if file.about.name.casefold() == name.casefold() and fits(file.about.base_model)
    )


def close_to(name: str, fits: Fits) -> Choice:
    """The file of the name that `closest` finds."""

    def choose(files: Sequence[LoraFile]) -> LoraFile | None:
        close = closest(name, (file.about.name for file in files if fits(file.about.base_model)))
        return None if close is None else named(close, fits)(files)

    return choose


def first_of(*choices: Choice) -> Choice:
    """What the first choice picks that picks any."""

    def choose(files: Sequence[LoraFile]) -> LoraFile | None:
        return next((file for choice in choices if (file := choice(files))), None)

    return choose


def closest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is meant: the same but for case, or the only one that begins so, or
    the one that differs by a few letters. None where there is none, or more than one.
    """
    known = {known.casefold(): known for known in names}
    wanted = name.casefold().strip()
    if wanted in known:
        return known[wanted]
    longer = [key for key in known if key.startswith(wanted)]
    if len(wanted) >= _SHORTEST_PREFIX and len(longer) == 1:
        return known[longer[0]]
    return _nearest(wanted, known)


def _nearest(wanted: str, known: Mapping[str, str]) -> str | None:
    ratios = {key: SequenceMatcher(None, wanted, key).ratio() for key in known}
    best = max(ratios.values(), default=0.0)
    nearest = [key for key, ratio in ratios.items() if ratio == best]
    return known[nearest[0]] if best >= _CLOSE and len(nearest) == 1 else None


def _newest(files: Iterable[LoraFile]) -> LoraFile | None:
    return max(files, key=lambda file: file.about.version_id, default=None)

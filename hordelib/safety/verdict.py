"""What a judge says about a finished picture, and how several of them judge as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hordelib.job.images import Picture


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in one picture; `reasons` are for the owner's log."""

    nsfw: bool = False
    csam: bool = False
    reasons: tuple[str, ...] = ()


class Judge(Protocol):
    """Looks at pictures, one at a time."""

    @property
    def name(self) -> str: ...

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        """`prompt` as the horde writes it, with the negative one after `###`.

        Raises JudgeFailed where nothing can be said; that is never an accusation.
        """
        ...


class Bench:
    """Judges as one judge: what any of them finds counts, and each has to say something."""

    def __init__(self, judges: Sequence[Judge]):
        self._judges = judges

    @property
    def name(self) -> str:
        return ", ".join(judge.name for judge in self._judges)

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        """Raises JudgeFailed when one of them does."""
        return joint([judge.judge(picture, prompt) for judge in self._judges])


def joint(verdicts: Sequence[Verdict]) -> Verdict:
    return Verdict(
        nsfw=any(verdict.nsfw for verdict in verdicts),
        csam=any(verdict.csam for verdict in verdicts),
        reasons=tuple(reason for verdict in verdicts for reason in verdict.reasons),
    )

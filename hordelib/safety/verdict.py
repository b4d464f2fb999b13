"""What a judge says about a finished picture, and how several of them judge as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from PIL import Image

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


class JudgePanel:
    """Judges as one judge: what any of them finds counts, and each has to say something."""

    def __init__(self, judges: Sequence[Judge]):
        self._judges = judges

    @property
    def name(self) -> str:
        return ", ".join(judge.name for judge in self._judges)

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        """Raises JudgeFailed when one of them does."""
        views = _views(picture)
        return joint([judge.judge(view, prompt) for judge in self._judges for view in views])


_PLAIN = (128, 128, 128, 255)  # a background that neither white nor black things vanish before


def _views(picture: Picture) -> tuple[Picture, ...]:
    """What is to be seen of a picture: of one with opacity also what shows on a background.

    Whoever gets it can take the opacity away; and shapes may be drawn by opacity alone.
    """
    if picture.mode != "RGBA":
        return (picture,)
    image = picture.to_pil()
    shown = Image.alpha_composite(Image.new("RGBA", image.size, _PLAIN), image)
    return tuple(
        replace(picture, mode="RGB", pixels=each.convert("RGB").tobytes())
        for each in (image, shown)
    )


def joint(verdicts: Sequence[Verdict]) -> Verdict:
    return Verdict(
        nsfw=any(verdict.nsfw for verdict in verdicts),
        csam=any(verdict.csam for verdict in verdicts),
        reasons=tuple(reason for verdict in verdicts for reason in verdict.reasons),
    )

"""Finds nudity with NudeNet, a detector of body parts whose weights come in its wheel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hordelib.job.images import Picture
from hordelib.safety.onnx_session import open_session, turn_telemetry_off
from hordelib.safety.verdict import Verdict

WEIGHTS = "320n.onnx"  # a file of the package

# NudeNet's class → the score (0 to 1) from which it makes a picture NSFW. It reports what it gives
# 0.25 and more, and gives up to 0.3 to round, skin-coloured things such as a cup of coffee. Bare
# feet, bellies, armpits and men's chests are in every beach picture, and are not in the table.
EXPOSED: Mapping[str, float] = MappingProxyType(
    {
        "FEMALE_GENITALIA_EXPOSED": 0.4,
        "MALE_GENITALIA_EXPOSED": 0.4,
        "ANUS_EXPOSED": 0.4,
        "FEMALE_BREAST_EXPOSED": 0.4,
        "BUTTOCKS_EXPOSED": 0.5,
    }
)


@dataclass(frozen=True, slots=True)
class Detection:
    part: str  # NudeNet's name of the class
    score: float  # 0 to 1


class NudeNetJudge:
    """Tells NSFW pictures; knows nothing about age. Needs about 50 ms a picture, on the CPU."""

    name = "NudeNet"

    def __init__(self, threads: int = 0) -> None:
        """It computes with `threads` threads, 0 for one a core."""
        turn_telemetry_off()
        import nudenet

        self._detector = nudenet.NudeDetector()
        # Its own session takes all cores, and can't be told otherwise.
        weights = Path(nudenet.__file__).with_name(WEIGHTS)
        self._detector.onnx_session = open_session(weights, threads=threads)

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        """`prompt` does not count: what was asked for is not what is seen."""
        return verdict_of(self.detect(picture))

    def detect(self, picture: Picture) -> list[Detection]:
        """All body parts found. Opacity is left aside, since whoever gets the picture may too."""
        found = self._detector.detect(_pixels(picture))
        return [Detection(str(each["class"]), float(each["score"])) for each in found]


def verdict_of(detections: Iterable[Detection]) -> Verdict:
    exposed = [each for each in detections if each.score >= EXPOSED.get(each.part, 2.0)]
    reasons = tuple(f"NudeNet: {each.part} {each.score:.2f}" for each in exposed)
    return Verdict(nsfw=bool(exposed), reasons=reasons)


def _pixels(picture: Picture) -> Any:
    """An (H, W, 3) array in RGB: NudeNet swaps the channels twice on their way to its network.

    (For a file it gets BGR from OpenCV, and finds less: a face of 64 pixels is lost.)
    """
    import numpy as np

    return np.asarray(picture.to_pil().convert("RGB"))

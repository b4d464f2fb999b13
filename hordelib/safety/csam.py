"""Finds CSAM with `horde_safety`, the checker that the AI Horde's own workers run.

It is an optional package (the extra `safety`). Its weights are two files, which are put into the
models folder before it is asked: nothing here downloads anything. Written for horde_safety 0.3.1.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Protocol

from PIL import Image

from hordelib.errors import JudgeFailed
from hordelib.job.control_weights import Weights
from hordelib.job.images import Picture
from hordelib.job.questions import CLIP
from hordelib.job.questions import CLIP_FOLDER as FOLDER
from hordelib.safety.verdict import Verdict

PACKAGE = "horde_safety"
ANIME = Weights(
    "model-resnet_custom_v3.pt",
    "https://github.com/AUTOMATIC1111/TorchDeepDanbooru/releases/download/v1/"
    "model-resnet_custom_v3.pt",
    "3841542cda4dd037da12a565e854b3347bb2eec8fbcd95ea3941b2c68990a355",
    size_bytes=644_200_000,
)
WEIGHTS = (CLIP, ANIME)


class Found(Protocol):
    @property
    def is_nsfw(self) -> bool: ...

    @property
    def is_csam(self) -> bool: ...


class Checker(Protocol):
    """An NSFWChecker, as far as it is used here."""

    def check_for_nsfw(self, image: Image.Image, prompt: str | None = None) -> Found | None: ...


class HordeSafetyJudge:
    """Tells CSAM and NSFW pictures, the prompt in mind. Errs towards flagging, on purpose.

    Takes about 3.5 GB of memory, and a second or so a picture, on the CPU.
    """

    name = PACKAGE

    def __init__(self, checker: Checker):
        self._checker = checker

    @classmethod
    def load(cls, models: Path) -> HordeSafetyJudge:
        """One that is ready to judge, in about a minute; `models` has the WEIGHTS in FOLDER."""
        judge = cls(load_checker(models))
        # The first picture takes as long as some others: a few hundred phrases are encoded for it.
        judge.judge(Picture(64, 64, bytes(64 * 64 * 3), seed=0), "")
        return judge

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        """Raises JudgeFailed where the checker could not tell."""
        # It takes a model's reference entry too, and makes no use of it.
        found = self._checker.check_for_nsfw(picture.to_pil().convert("RGB"), prompt=prompt)
        if found is None:
            raise JudgeFailed(f"{PACKAGE} could not judge the picture")
        return _verdict(nsfw=bool(found.is_nsfw), csam=bool(found.is_csam))


def _verdict(*, nsfw: bool, csam: bool) -> Verdict:
    found = {"CSAM": csam, "NSFW": nsfw}
    return Verdict(
        nsfw, csam, tuple(f"{PACKAGE}: {what}" for what, is_so in found.items() if is_so)
    )


def is_installed() -> bool:
    """Does not import it, so that no process but the judge's own gets torch by it."""
    return importlib.util.find_spec(PACKAGE) is not None


def load_checker(models: Path) -> Checker:
    """A horde_safety.NSFWChecker with its networks in memory, on the CPU."""
    # Read when it is imported; otherwise it makes a folder in the owner's home.
    os.environ["AIWORKER_CACHE_HOME"] = str(models)
    from horde_safety.deep_danbooru_model import get_deep_danbooru_model
    from horde_safety.nsfw_checker_class import NSFWChecker

    from hordelib.safety.clip_similarity import ClipSimilarity

    folder = models / FOLDER
    return NSFWChecker(
        ClipSimilarity(folder / CLIP.file),
        get_deep_danbooru_model(model_path=folder / ANIME.file, device="cpu"),
    )

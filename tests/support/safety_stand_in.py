"""A checker that obeys the prompt, in the place of horde_safety's, and files for its weights."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from PIL import Image

from hordelib.job.images import Picture
from hordelib.safety import csam
from hordelib.safety.csam import FOLDER, WEIGHTS, HordeSafetyJudge
from hordelib.safety.nudenet import NudeNetJudge
from hordelib.safety.verdict import Judge, JudgePanel
from worker.children import judge_main
from worker.children.messages import JudgeSettings

PACKAGES = Path(__file__).parent / "stand_ins"
PLAIN = Picture(64, 64, bytes(64 * 64 * 3), seed=1)
BROKEN = "broken"  # a file of the models folder: the checker can't be loaded


@dataclass(frozen=True)
class Found:
    is_nsfw: bool
    is_csam: bool


@dataclass(frozen=True)
class ObedientChecker:
    models: Path

    def check_for_nsfw(self, image: Image.Image, prompt: str | None = None) -> Found | None:
        match prompt:
            case "undecided":
                return None
            case "raise":
                raise RuntimeError("cannot reshape tensor")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die once" if self._is_first_time():
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case _:
                pass
        return Found(is_nsfw=prompt in ("nsfw", "csam"), is_csam=prompt == "csam")

    def _is_first_time(self) -> bool:
        try:
            (self.models / "died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def main(pipe: Connection, settings: JudgeSettings) -> None:
    """The judge's child, with that checker."""
    judge_main.main(pipe, settings, load)


def load(settings: JudgeSettings) -> Judge:
    if (settings.models / BROKEN).exists():
        raise RuntimeError("PytorchStreamReader failed reading zip archive")
    return JudgePanel([NudeNetJudge(1), HordeSafetyJudge(ObedientChecker(settings.models))])


def install(patch: pytest.MonkeyPatch) -> None:
    """As if the package were there, for this process."""
    patch.setattr(sys, "path", [str(PACKAGES), *sys.path])


def put_weights(models: Path, patch: pytest.MonkeyPatch) -> None:
    """Put files where horde_safety's weights are looked for, and have them be the wanted ones."""
    folder = models / FOLDER
    folder.mkdir(parents=True)
    for weights in WEIGHTS:
        (folder / weights.file).write_bytes(weights.file.encode())
    wanted = [
        replace(weights, sha256=hashlib.sha256(weights.file.encode()).hexdigest())
        for weights in WEIGHTS
    ]
    patch.setattr(csam, "WEIGHTS", tuple(wanted))

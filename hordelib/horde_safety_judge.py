"""Finds CSAM with `horde_safety`, the checker that the AI Horde's own workers run.

It is an optional package (the extra `safety`), and its weights are some files that it fetches by
itself: `python -m hordelib.horde_safety_judge MODELS_FOLDER` has it do so. Here it only ever reads
weights that are there. Written for horde_safety 0.3.1.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from hordelib.errors import JudgeFailed
from hordelib.images import Picture
from hordelib.safety import Verdict

PACKAGE = "horde_safety"
VERSIONS = ">=0.3.1,<0.4"
# Where horde_safety keeps weights below AIWORKER_CACHE_HOME, and what it asks open_clip for there:
# the file of older versions, the cache entry of newer ones.
FOLDER = "clip_blip"
ANIME_WEIGHTS = "model-resnet_custom_v3.pt"
# Phrases that CLIP has encoded already; without them each start takes many minutes.
PHRASES = tuple(
    f"ViT-L-14_openai_{kind}.safetensors"
    for kind in ("artists", "flavors", "mediums", "movements", "trendings", "negative")
)
CLIP_WEIGHTS = ("ViT-L-14.pt", "models--timm--vit_large_patch14_clip_224.openai")


class HordeSafetyJudge:
    """Tells CSAM and NSFW pictures, the prompt in mind. Errs towards flagging, on purpose.

    Takes about 4 GB of memory, and some seconds a picture, on the CPU.
    """

    name = PACKAGE

    def __init__(self, models: Path):
        """Load the checker, in about a minute. `models` is a folder where nothing is `missing`."""
        os.environ["HF_HUB_OFFLINE"] = "1"  # a gigabyte that nobody asked for is no start-up
        self._checker = load_checker(models)
        # Its first picture takes as long as ten others: it has some thousand phrases to encode.
        self._checker.check_for_nsfw(Image.new("RGB", (64, 64)), prompt="")

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


def missing(models: Path) -> str:
    """What keeps the checker from being used, with the remedy; "" where all is there.

    Does not import it, so that no process but the judge's own gets torch by it.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        install = f"{sys.executable} -m pip install '{PACKAGE}{VERSIONS}'"
        return f"the package {PACKAGE} is not installed (run {install})"
    folder = models / FOLDER
    has_clip = any((folder / name).exists() for name in CLIP_WEIGHTS)
    if not has_clip or not all((folder / name).is_file() for name in (ANIME_WEIGHTS, *PHRASES)):
        fetch = f"{sys.executable} -m {__name__} {models}"
        return f"the weights of {PACKAGE} are not in {folder} (run {fetch})"
    return ""


def load_checker(models: Path) -> Any:
    """A horde_safety.NSFWChecker with its models in memory; fetches what is not in `models`."""
    os.environ["AIWORKER_CACHE_HOME"] = str(models)  # read when it is imported
    from horde_safety.deep_danbooru_model import get_deep_danbooru_model
    from horde_safety.interrogate import get_interrogator_no_blip
    from horde_safety.nsfw_checker_class import NSFWChecker

    return NSFWChecker(
        get_interrogator_no_blip(device="cpu"), get_deep_danbooru_model(device="cpu")
    )


if __name__ == "__main__":
    load_checker(Path(sys.argv[1]).resolve())

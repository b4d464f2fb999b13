"""Stands in for horde_safety 0.3.1: the same names, and a checker that obeys the prompt."""

import os
from pathlib import Path

CACHE_FOLDER_PATH = str(Path(os.environ["AIWORKER_CACHE_HOME"]) / "clip_blip")

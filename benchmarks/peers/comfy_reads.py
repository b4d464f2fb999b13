"""Counts the checkpoints that the ComfyUI of this process reads."""

from __future__ import annotations

import importlib
from typing import Any


class Reads:
    """`count` since this was made. ComfyUI must be importable."""

    def __init__(self) -> None:
        self.count = 0
        files: Any = importlib.import_module("comfy.sd")
        self._read = files.load_checkpoint_guess_config
        files.load_checkpoint_guess_config = self._counted

    def _counted(self, *arguments: Any, **options: Any) -> Any:
        self.count += 1
        return self._read(*arguments, **options)

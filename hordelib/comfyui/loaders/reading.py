"""What every loader does with what ComfyUI raises."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hordelib.comfyui.device_faults import device_trouble
from hordelib.errors import ModelBroken
from hordelib.files.headers import verify_checkpoint

_LONGEST_REASON = 300  # characters


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Turn any error while this file is read into OutOfMemory, EngineError or ModelBroken."""
    try:
        yield
    except ModelBroken:
        raise
    except Exception as error:
        known = device_trouble("loading the model", error)
        raise known or _broken(path, error) from error


def _broken(path: Path, error: Exception) -> ModelBroken:
    """In words with a remedy, where the file is at fault; else in those of its reader."""
    try:
        verify_checkpoint(path)
    except ModelBroken as damage:
        return damage
    return ModelBroken(
        f"{path}: can't be loaded ({_reason(error)}); fetch it again, or another one"
    )


def _reason(error: Exception) -> str:
    """torch says in the first line which network, and only in the next ones what is wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."

"""Dreamer's inference library: pictures from ComfyUI graphs, in any Python program.

Importing it loads neither torch nor ComfyUI; `Engine.start` or the first job does. What is imported
from it is loaded when its name is first asked for, so that a part of it can be used by itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hordelib.demo_model import ensure_checkpoint as demo_checkpoint
    from hordelib.engine import Engine, Generation
    from hordelib.errors import EngineError, HordelibError, InvalidParams, JobError
    from hordelib.job.images import Picture, SourceImage
    from hordelib.job.params import GenerationParams

__all__ = [
    "Engine",
    "EngineError",
    "Generation",
    "GenerationParams",
    "HordelibError",
    "InvalidParams",
    "JobError",
    "Picture",
    "SourceImage",
    "demo_checkpoint",
]
_PLACES = {  # of each name: its module, and what it is called there
    "Engine": ("engine", "Engine"),
    "EngineError": ("errors", "EngineError"),
    "Generation": ("engine", "Generation"),
    "GenerationParams": ("job.params", "GenerationParams"),
    "HordelibError": ("errors", "HordelibError"),
    "InvalidParams": ("errors", "InvalidParams"),
    "JobError": ("errors", "JobError"),
    "Picture": ("job.images", "Picture"),
    "SourceImage": ("job.images", "SourceImage"),
    "demo_checkpoint": ("demo_model", "ensure_checkpoint"),
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, there = _PLACES[name]
    found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), there)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Dreamer's inference library: pictures from ComfyUI graphs, in any Python program.

Importing it loads neither torch nor ComfyUI; `Engine.start` or the first job does.
"""

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

"""The models that are measured: files that the owner names, or the demo model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure.machine import PROJECT
from benchmarks.results.document import BadInput
from hordelib import demo_checkpoint
from hordelib.errors import ModelBroken, ModelMissing
from hordelib.files.model import Model

MODELS = PROJECT / "models"
ENDINGS = (".safetensors", ".ckpt")


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="*", type=Path, help="model files (default: the demo model)")


def models_of(paths: Sequence[Path]) -> list[Model]:
    """Raises BadInput, naming the file, for one that is missing or no model."""
    for path in paths:
        if path.is_file() and path.suffix not in ENDINGS:
            raise BadInput(f"{path} is no model: their names end in {', '.join(ENDINGS)}")
    try:
        return [Model.of_checkpoint(path) for path in paths or [demo_checkpoint(MODELS)]]
    except (ModelMissing, ModelBroken) as error:
        raise BadInput(str(error)) from error

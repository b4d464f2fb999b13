"""What became of a model's files since it was offered, for its owner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hordelib.errors import ModelBroken, ModelMissing
from hordelib.files.headers import verify_checkpoint
from hordelib.files.model import Model
from hordelib.files.model_key import FileStamp

Stamps = Mapping[Path, FileStamp | None]  # None: there is no such file

REMEDY = "put the whole file back, and the model is offered again"


def stamps_of(model: Model) -> Stamps:
    """Tell the model's files, as they are now, from those that may take their places."""
    return {path: stamp_of(path) for path in model.files.values()}


def describe_change(before: Stamps) -> str:
    """One line, with the remedy, on the first file that is another one by now; "": none is."""
    changed = next((path for path, stamp in before.items() if stamp_of(path) != stamp), None)
    return f"{_trouble(changed)}; {REMEDY}" if changed else ""


def _trouble(path: Path) -> str:
    """Reads no more of the file than its list of tensors."""
    try:
        FileStamp.of(path)
        verify_checkpoint(path)
    except (ModelMissing, OSError):
        return f"{path} is gone"
    except ModelBroken as error:
        return str(error)
    return f"{path} is not the file any more that was verified"


def stamp_of(path: Path) -> FileStamp | None:
    """None where there is no such file."""
    try:
        return FileStamp.of(path)
    except ModelMissing:
        return None

"""Pickled checkpoints: whether one loads without running code of its author's.

ComfyUI reads them with torch's `weights_only`, which builds tensors and plain containers and
refuses everything else, after it has read the file up to there. Here only the list of what a
pickle names is looked at; nothing of it is imported or called.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hordelib.errors import ModelBroken

_MOST_BYTES = 100 << 20  # of the list of tensors
_BEFORE_ZIP = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # how torch < 1.6 begins a file

_NO_PICKLE = "cut off, or none of torch.save"

# What torch 2.5's weights_only allows, and the few names that ComfyUI adds to it (comfy/utils.py).
_ALLOWED = re.compile(
    r"""
    collections\.(OrderedDict|Counter)
    | (builtins|__builtin__)\.(set|bytearray|complex|dict|list|int|float|str|bool)
    | torch\.(\w+Storage|Size|Tensor|device|float\w*|double|half|bfloat16|u?int\d*|long|short|bool
              |complex\w+|q\w+|strided|sparse_\w+)
    | torch\.storage\.(Typed|Untyped)Storage
    | torch\.nn\.parameter\.(Parameter|Buffer)
    | torch\._utils\._rebuild_\w+
    | torch\._tensor\._rebuild_from_type_v2
    | torch\.serialization\._get_layout
    | pytorch_lightning\.callbacks\.model_checkpoint\.ModelCheckpoint
    | numpy\.core\.multiarray\.scalar
    | numpy\.dtype
    | numpy\.dtypes\.Float64DType
    | _codecs\.encode
    """,
    re.VERBOSE,
)


def insist_on_safe_pickle(path: Path) -> None:
    """Raises ModelBroken, naming the file and the remedy, for a pickle that asks for more.

    As for what is cut off, or no file of torch.save. One of the format from before torch 1.6
    passes: only loading it tells.
    """
    try:
        refused = sorted(set(_refused(path)))
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise ModelBroken(f"{path}: a damaged pickle ({error}); fetch it again") from error
    if refused:
        raise ModelBroken(
            f"{path}: a pickle that could run code when it is read ({', '.join(refused[:3])});"
            " use a safetensors file of this model"
        )


def _refused(path: Path) -> Iterator[str]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(len(_BEFORE_ZIP)) != _BEFORE_ZIP:
                raise ValueError(_NO_PICKLE)
        return
    with zipfile.ZipFile(path) as archive:
        lists = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if not lists:
            raise ValueError(_NO_PICKLE)
        for name in lists:
            if archive.getinfo(name).file_size > _MOST_BYTES:
                raise ValueError("its list of tensors is too long")
            yield from _refused_names(archive.read(name))


def _refused_names(content: bytes) -> Iterator[str]:
    """What it names beyond tensors; names that it puts together itself count as such."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("GLOBAL", "INST"):
            name = str(argument).replace(" ", ".")
            if opcode.name == "INST" or not _ALLOWED.fullmatch(name):
                yield name
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield "a name that it builds itself"

"""Networks that say something of a picture in words or a number: what the alchemist asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hordelib.alchemy.interrogation import WordLists, encoded_lists, word_lists
from hordelib.comfyui.loaders.image_networks import on_patcher
from hordelib.comfyui.loaders.reading import reading
from hordelib.files.model_key import FileStamp, ModelKey
from hordelib.job.questions import FOLDER
from hordelib.pictures.aesthetic_head import read_aesthetic_head
from hordelib.pictures.captions import read_captioner
from hordelib.pictures.clip import encode_texts, read_picture_clip
from hordelib.pictures.finite import are_numbers

WORDS = "word-lists.safetensors"


@dataclass(frozen=True, slots=True)
class PictureReader:
    """A reader, and the ComfyUI patcher that brings its network to the device; None has no network.

    Networks compute in 16 bits where the device is fast at it.
    """

    reader: Any
    patcher: Any = None

    @property
    def host_bytes(self) -> int | None:
        """Of what stays in main memory, where it is not as large as its file."""
        return getattr(self.reader, "host_bytes", None)

    def has_numbers(self) -> bool:
        """Whether all of its network's weights are."""
        return self.patcher is None or are_numbers(self.patcher.model.state_dict())


def load_picture_reader(key: ModelKey) -> PictureReader:
    """Raises ModelBroken, naming the file, where it holds something else."""
    with reading(key.path):
        return _LOADERS[key.variant](key.path)


def _with_network(read: Callable[[Path], Any], path: Path) -> PictureReader:
    import comfy.model_management as device
    from torch import nn

    reader = read(path)
    is_fast = device.should_use_fp16(device.get_torch_device())
    network = reader.network.half() if is_fast else reader.network.float()
    # A patcher writes down where its module is; transformers' own say that themselves.
    return PictureReader(reader, on_patcher(nn.ModuleList([network])))


def _words(path: Path) -> PictureReader:
    """Of CLIP's weights: the lists as CLIP understands them."""
    return PictureReader(_encoded(path))


def _encoded(path: Path) -> WordLists:
    import comfy.sd1_clip

    tokens = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
    stamp = FileStamp.of(path)
    return encoded_lists(
        word_lists(),
        lambda texts: encode_texts(path, texts, tokens),
        f"{path.name} {stamp.size_bytes} {stamp.changed_ns}",
        path.parents[1] / FOLDER / WORDS,
    )


_LOADERS: Mapping[str, Callable[[Path], PictureReader]] = {
    "captioner": partial(_with_network, read_captioner),
    "clip": partial(_with_network, read_picture_clip),
    "words": _words,
    "aesthetic_head": lambda path: PictureReader(read_aesthetic_head(path)),
}

"""Leaves out of a start what libraries import for computations that hardly any process makes.

It comes when something of it is asked for. With ComfyUI's libraries, all together takes some two
and a half seconds of each start, and 185 MiB of main memory for good.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LATER = (
    "scipy.integrate",  # ComfyUI's LMS samplers
    "scipy.ndimage",  # ComfyUI's masks that grow
    "scipy.stats",  # ComfyUI's scheduler "beta"
    "torch._dynamo.utils",  # torchvision's roi_align, where CUDA is to be deterministic
    "torch.distributed.tensor",  # debugging transformers
)

# What ComfyUI's modules take of transformers, and where it is. To import the package itself looks
# for the names of all its classes in its 1,400 files, twice.
TOKENIZERS = {
    "AddedToken": "tokenization_utils_base",
    "BertTokenizer": "models.bert.tokenization_bert",
    "ByT5Tokenizer": "models.byt5.tokenization_byt5",
    "CLIPTokenizer": "models.clip.tokenization_clip",
    "LlamaTokenizerFast": "models.llama.tokenization_llama_fast",
    "Qwen2Tokenizer": "models.qwen2.tokenization_qwen2",
    "T5TokenizerFast": "models.t5.tokenization_t5_fast",
}


def import_lean(names: Sequence[str]) -> None:
    """Import these modules, and what they import, but LATER.

    With all of that, where some module does not only name one of LATER, but imports a part of it.
    Raises ImportError.
    """
    try:
        with _left_out():
            _import(names)
    except ImportError:
        _import(names)


def _import(names: Sequence[str]) -> None:
    for name in names:
        import_module(name)


@contextmanager
def _left_out() -> Generator[None]:
    placeholders = {name: _Later(name) for name in LATER if name not in sys.modules}
    if "transformers" not in sys.modules:
        placeholders |= _bare_transformers()
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, placeholder in placeholders.items():
            if sys.modules.get(name) is placeholder:
                del sys.modules[name]


class _Later(ModuleType):
    """Stands for a module in those that import it; what they ask it for is the real one's."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import asks for some, and `inspect` asks all modules
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)

    def is_compile_supported(self, device_type: str) -> bool:
        """Of torch._dynamo.utils, which torchvision takes when it is imported itself."""
        return import_module(self.__name__).is_compile_supported(device_type)


class _BarePackage(_Later):
    """A package of which nothing runs but the modules that are asked for."""

    def __init__(self, name: str, path: str):
        super().__init__(name)
        self.__path__ = [path]
        self.__version__ = metadata.version("transformers")

    def __getattr__(self, name: str) -> Any:
        if name in TOKENIZERS:
            return getattr(import_module(f"transformers.{TOKENIZERS[name]}"), name)
        return super().__getattr__(name)


def _bare_transformers() -> dict[str, _Later]:
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return {}
    (path,) = spec.submodule_search_locations
    return {
        "transformers": _BarePackage("transformers", path),
        "transformers.models": _BarePackage("transformers.models", f"{path}/models"),
    }

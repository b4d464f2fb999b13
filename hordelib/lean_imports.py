"""Leaves out of a start what libraries import for computations that hardly any process makes.

It comes when something of it is asked for. All together takes some three seconds of each start,
and 200 MiB of main memory for good.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

LATER = (
    "scipy.integrate",  # ComfyUI's LMS samplers
    "scipy.stats",  # ComfyUI's scheduler "beta"
    "torch._dynamo.utils",  # torchvision's roi_align, where CUDA is to be deterministic
    "torch.distributed.tensor",  # debugging transformers
)


@contextmanager
def imported_later() -> Generator[None]:
    """Modules that are imported in the block may import those of LATER without their being read."""
    left_out = {name: _Later(name) for name in LATER if name not in sys.modules}
    sys.modules.update(left_out)
    try:
        yield
    finally:
        for name, placeholder in left_out.items():
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

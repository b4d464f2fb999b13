"""Measures this process' memory while a checkpoint is loaded, used and dropped; prints JSON.

Run alone, as `python -m tests.support.memory_probe FIRST SECOND`: what other tests freed would hide
growth. The second is measured; the first brings in code and a vocabulary.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from hordelib.comfyui.boot import boot
from hordelib.comfyui.device import default_folder
from hordelib.comfyui.memory_hooks import forget_models, read_part
from hordelib.files.model_key import CHECKPOINT_PARTS, ModelKey
from hordelib.memory.budget import MemoryBudget
from hordelib.memory.cache import ModelCache
from hordelib.memory.loans import DeviceLoans
from hordelib.memory.readings import main_memory


def main(first: Path, second: Path) -> None:
    boot(default_folder(), "cpu")
    from hordelib.comfyui.loaders import reading_bytes
    from hordelib.memory.parts import LoadedPart

    budget = MemoryBudget(lambda: main_memory().free_bytes, reserve_bytes=0)
    cache: ModelCache[LoadedPart] = ModelCache(
        read_part, budget, weigh=reading_bytes, forget=forget_models
    )
    with ExitStack() as kept:
        for part in CHECKPOINT_PARTS:
            kept.enter_context(cache.hold(ModelKey("checkpoint", first, part)))
        keys = [ModelKey("checkpoint", second, part) for part in CHECKPOINT_PARTS]
        _use(cache, keys[0])  # the first use of anything loads code, too
        cache.clear()
        measured = {"before": _resident_bytes()}
        for key in keys:
            _hold(cache, key)
        measured["loaded"] = _resident_bytes()
        for key in keys:
            _use(cache, key)
        measured["used"] = _resident_bytes()
        cache.clear()
        measured["dropped"] = _resident_bytes()
    print(json.dumps(measured))


def _resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def _hold(cache: ModelCache[Any], key: ModelKey) -> None:
    with cache.hold(key):
        pass


def _use(cache: ModelCache[Any], key: ModelKey) -> None:
    import comfy.model_management as memory

    with cache.hold(key) as held, DeviceLoans({key: held}, lambda _: 0, cache, lambda: 0) as loans:
        loans.bring(held.part.patchers)
        memory.load_models_gpu(list(held.part.patchers))
        for weight in held.part.patchers[0].model.parameters():
            weight.sum()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

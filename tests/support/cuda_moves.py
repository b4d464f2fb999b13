"""Takes half of each model off a card, and says what that changed.

Run alone, as `python -m tests.support.cuda_moves CHECKPOINT`: JSON with the bytes of each part on
the card before and afterwards, and how far the picture made then is from the one made before. Parts
that are computed in another type than their file has are left out: they go as a whole.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hordelib import Engine
from hordelib.memory.parts import Patched
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference


def main(checkpoint: Path, device: str = "cuda:0") -> None:
    with Engine(device=device) as engine:
        before = engine.generate(SMALL, checkpoint).images[0]
        parts = engine._thread.submit(halve, engine).result()
        after = engine.generate(SMALL, checkpoint).images[0]
    print(json.dumps({"parts": parts, "difference": difference(before, after)}))


def halve(engine: Engine) -> dict[str, tuple[int, int]]:
    """In the engine's thread: bytes of each part on the card, before and afterwards."""
    assert engine._loaded is not None
    cache, moved = engine._loaded.cache, dict[str, tuple[int, int]]()
    with cache.undisturbed():
        for key, entry in cache._entries.items():
            part, had_bytes = entry.part, entry.part.device_bytes
            if isinstance(part, Patched) and had_bytes and not part._weights.converted_bytes:
                part.give_back(had_bytes // 2)
                moved[str(key)] = had_bytes, part.device_bytes
    return moved


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

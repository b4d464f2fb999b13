"""Which model or LoRA kills the engine: what it dies of again and again is not offered any more."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

DEATHS = 3  # of the engine, until the one that they have in common is not used any more


@dataclass(frozen=True, slots=True)
class Convicted:
    """What has reached its last death with this one."""

    model: str = ""
    loras: tuple[Path, ...] = ()


class Suspects:
    """Counts the engine's deaths by what was at work; a job that goes well clears what it used.

    A LoRA is suspected before its model: deaths with one and the same set of LoRAs count only once
    against the model.
    """

    def __init__(self) -> None:
        self._models: dict[str, list[frozenset[Path]]] = defaultdict(list)
        self._loras: Counter[Path] = Counter()

    def died(self, model: str, loras: Collection[Path]) -> Convicted:
        """The engine died over a job with these."""
        used = frozenset(loras)
        self._loras.update(used)
        if not used or used not in self._models[model]:
            self._models[model].append(used)
        return Convicted(
            model if len(self._models[model]) >= DEATHS else "",
            tuple(lora for lora in used if self._loras[lora] >= DEATHS),
        )

    def did_well(self, model: str, loras: Collection[Path]) -> None:
        self._models.pop(model, None)
        for lora in loras:
            self._loras.pop(lora, None)

"""Which model or LoRA kills the engine: what it dies of again and again is not offered any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from pathlib import Path

DEATHS = 3  # of the engine, until the one that they have in common is not used any more


@dataclass(frozen=True, slots=True)
class Convicted:
    """What has reached its last death with this one."""

    model: str = ""
    loras: tuple[Path, ...] = ()


@dataclass(slots=True)
class _Case:
    """What speaks against one model or LoRA."""

    deaths: int = 0
    jobs: set[Hashable] = field(default_factory=set[Hashable])

    @property
    def is_closed(self) -> bool:
        """No single job convicts anybody, however often it comes."""
        return self.deaths >= DEATHS and len(self.jobs) > 1

    def add(self, job: Hashable) -> None:
        self.deaths += 1
        self.jobs.add(job)


class Suspects:
    """Counts the engine's deaths by what was at work; a job that goes well clears what it used.

    A LoRA is suspected before its model: deaths with one and the same set of LoRAs count only once
    against the model.
    """

    def __init__(self) -> None:
        self._models: dict[str, _Case] = defaultdict(_Case)
        self._loras: dict[Path, _Case] = defaultdict(_Case)

    def died(self, model: str, loras: Collection[Path], job: Hashable) -> Convicted:
        """The engine died over a job with these; `job` is the same when that job comes again."""
        used = frozenset(loras)
        for lora in used:
            self._loras[lora].add(job)
        if not used or used not in self._models[model].jobs:
            self._models[model].add(used or job)
        return Convicted(
            model if self._models[model].is_closed else "",
            tuple(lora for lora in used if self._loras[lora].is_closed),
        )

    def did_well(self, model: str, loras: Collection[Path]) -> None:
        self._models.pop(model, None)
        for lora in loras:
            self._loras.pop(lora, None)

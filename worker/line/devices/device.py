"""A device of the worker: its engine, what its owner lets it do, and which models it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from hordelib.engine import Generation
from worker.children.engine import EngineProcess
from worker.models.memory_fit import CardShare
from worker.prediction.predictor import SecondsPredictor

READ_SECONDS = 10.0  # to read a model from the disk, until it was measured
MOVE_SECONDS = 1.0  # to bring one to the card that is in memory, until it was measured


@dataclass(frozen=True, slots=True)
class Device:
    """One card, or the processor where there is none.

    Args:
        name: for its owner; "" where it is the only one.
        predictor: of the seconds on cards of this kind; None: that of the journal.
        share: what it does of the offer; None: all of it.
    """

    engine: EngineProcess
    name: str = ""
    predictor: SecondsPredictor | None = None
    share: CardShare | None = None


@dataclass(slots=True)
class Residency:
    """Which models a device has, as far as it follows from what it has made.

    The cache of its engine decides what stays; that it is mistaken costs a moment and no job.
    """

    on_card: str = ""
    _reading: float = field(default_factory=lambda: READ_SECONDS)
    _moving: dict[str, float] = field(default_factory=dict[str, float])

    def seconds_to_have(self, model: str) -> float:
        if model == self.on_card:
            return 0.0
        return self._moving.get(model, self._reading)

    def made(self, model: str, generation: Generation) -> None:
        if model in self._moving:
            if model != self.on_card:
                self._moving[model] = generation.load_seconds
        else:
            self._reading = max(generation.load_seconds, MOVE_SECONDS)
            self._moving[model] = MOVE_SECONDS
        self.on_card = model

    def lost(self) -> None:
        """Its engine has ended."""
        self.on_card = ""
        self._moving.clear()

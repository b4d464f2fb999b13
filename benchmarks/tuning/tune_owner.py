"""Whom a machine is tuned for: the owner's configuration and models, or the demo model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from benchmarks.measure.model_files import MODELS
from benchmarks.results.document import BadInput
from hordelib import demo_checkpoint
from hordelib.files.model import Model
from worker.config.config import load_config
from worker.config.editing import Value
from worker.config.keys import BridgeConfig
from worker.config.values import MemoryReserve
from worker.devices import Card, first_card
from worker.errors import ConfigError, EngineUnusable
from worker.models.inventory import ModelsFolder, take_inventory
from worker.models.memory_fit import ComputeMemory
from worker.models.opening import find_models

STAND_IN = {"api_key": "nobody's", "dreamer_name": "nobody's"}  # beside the defaults
MOST_TOLD = 3  # lines of missing models: a group may have hundreds


@dataclass(frozen=True, slots=True)
class Owner:
    """`file`: None where there is none, so that defaults count. `home` is the worker's folder.

    `models` are those that can be used; `missing` has a line for each that can't, or is not here.
    """

    file: Path | None
    home: Path
    config: BridgeConfig
    models: Mapping[str, Model]
    missing: tuple[str, ...]
    card: Card | None
    has_own_models: bool = True

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises BadInput for a file that can't be used, or a card that does not work."""
        home = path.absolute().parent
        try:
            card = first_card()
            if not path.exists():
                return cls(None, home, BridgeConfig.model_validate(STAND_IN), {}, (), card)
            config = load_config(path)
        except ConfigError as error:
            raise BadInput(f"{path} can't be used: {'; '.join(error.problems)}") from error
        except EngineUnusable as error:
            raise BadInput(str(error)) from error
        inventory = take_inventory(ModelsFolder.of(config, home))
        found = find_models(config, home, inventory)
        coming = (f"{stock.name}: is not here and verified yet" for stock in inventory.coming)
        return cls(path, home, config, found.served, (*found.problems, *coming), card)

    def or_demo(self) -> Self:
        """With the demo model, while none of the owner's is here."""
        return self if self.models else replace(self, models=_demo(), has_own_models=False)

    @property
    def told_missing(self) -> str:
        """The first of them."""
        more = len(self.missing) - MOST_TOLD
        return "; ".join((*self.missing[:MOST_TOLD], *([f"{more} more"] if more > 0 else [])))

    @property
    def memory(self) -> ComputeMemory:
        return ComputeMemory.of(self.config, self.card)

    @property
    def examples(self) -> tuple[Model, ...]:
        """The largest model of each family: all of a family take the same time."""
        by_size = sorted(self.models.values(), key=weights_bytes)
        return tuple({model.family.name: model for model in by_size}.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Of models_to_load: names and groups."""
        return self.config.models_to_load

    def now(self, key: str) -> Value:
        """What is set, or the default, as the file would have it."""
        value = getattr(self.config, key)
        if isinstance(value, MemoryReserve):
            return str(value)
        return value


def weights_bytes(model: Model) -> int:
    return sum(path.stat().st_size for path in model.files.values())


def _demo() -> Mapping[str, Model]:
    model = Model.of_checkpoint(demo_checkpoint(MODELS))
    return {model.name: model}

"""Whom a machine is tuned for: the owner's configuration and models, or the demo model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.document import BadInput
from benchmarks.model_files import MODELS
from hordelib import demo_checkpoint
from hordelib.model import Model
from worker.assembly import find_models
from worker.config import BridgeConfig, MemoryReserve, load_config
from worker.config_edit import Value
from worker.devices import Card, first_card
from worker.errors import ConfigError, EngineUnusable
from worker.memory_fit import ComputeMemory
from worker.model_inventory import ModelsFolder, take_inventory

STAND_IN = {"api_key": "nobody's", "dreamer_name": "nobody's"}  # beside the defaults


@dataclass(frozen=True, slots=True)
class Owner:
    """`file`: None where there is none, so that defaults count.

    `models` are those that can be used: the demo model, while none of the owner's is here.
    """

    file: Path | None
    config: BridgeConfig
    models: Mapping[str, Model]
    has_own_models: bool
    card: Card | None

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises BadInput for a file that can't be used, or a card that does not work."""
        try:
            card = first_card()
            if not path.exists():
                config = BridgeConfig.model_validate(STAND_IN)
                return cls(None, config, _demo(), False, card)
            config, home = load_config(path), path.resolve().parent
        except ConfigError as error:
            raise BadInput(f"{path} can't be used: {'; '.join(error.problems)}") from error
        except EngineUnusable as error:
            raise BadInput(str(error)) from error
        models = find_models(config, home, take_inventory(ModelsFolder.of(config, home))).served
        return cls(path, config, models or _demo(), bool(models), card)

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
            return f"{value.percent}%" if value.percent else f"{value.size_bytes >> 20} MiB"
        return value


def weights_bytes(model: Model) -> int:
    return sum(path.stat().st_size for path in model.files.values())


def _demo() -> Mapping[str, Model]:
    model = Model.of_checkpoint(demo_checkpoint(MODELS))
    return {model.name: model}

"""What the worker offers at a pop: its models, its capabilities, and sizes that fit into memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from hordelib.files.model import Model
from worker.config.keys import BridgeConfig
from worker.devices import first_card
from worker.horde.api import Offer
from worker.models import capabilities
from worker.models.capabilities import Capability, Installed
from worker.models.introduction import Introduction, introduction
from worker.models.memory_fit import ComputeMemory, most_pixels
from worker.models.offered import MakeOffer
from worker.models.opening import Models


def find_capabilities(config: BridgeConfig, home: Path, models: Models) -> tuple[Capability, ...]:
    """The kinds of jobs that can be served, and what those lack that can't."""
    installed = Installed(config.models_folder(home))
    return capabilities.capabilities(config, installed, models.served.values())


def introduce(config: BridgeConfig, home: Path, models: Models) -> Introduction:
    """As its owner says, or as fits what is there."""
    return _introduce(config, Installed(config.models_folder(home)), models.served.values())


def _introduce(
    config: BridgeConfig, installed: Installed, models: Collection[Model]
) -> Introduction:
    if config.bridge_agent:
        return Introduction(config.bridge_agent)
    return introduction(installed, models)


def offer_maker(config: BridgeConfig, home: Path) -> MakeOffer:
    """Makes offers of models by their names, for as long as the worker runs.

    The memory is measured now, while the driver answers. Raises EngineUnusable where it does not.
    """
    memory = compute_memory(config)

    def make(models: Mapping[str, Model], broken: frozenset[Path]) -> Offer:
        installed = Installed(config.models_folder(home), broken)
        return _make_offer(config.now, installed, models, memory)

    return make


def _make_offer(
    config: BridgeConfig, installed: Installed, models: Mapping[str, Model], memory: ComputeMemory
) -> Offer:
    """What all of these models can do."""
    kinds = capabilities.capabilities(config, installed, models.values())
    flags = {each.flag: each.is_offered for each in kinds}
    return Offer(
        name=config.dreamer_name,
        models=tuple(models),
        bridge_agent=_introduce(config, installed, models.values()).bridge_agent,
        max_pixels=most_pixels(models.values(), memory, config.max_pixels),
        amount=config.max_batch,
        nsfw=config.nsfw,
        blacklist=config.blacklist,
        priority_usernames=config.priority_usernames,
        require_upfront_kudos=config.require_upfront_kudos,
        allow_unsafe_ip=config.allow_unsafe_ip,
        extra_slow_worker=config.extra_slow_worker,
        limit_max_steps=config.limit_max_steps,
        **flags,
    )


def compute_memory(config: BridgeConfig) -> ComputeMemory:
    """Raises EngineUnusable where the driver of a card does not answer."""
    return ComputeMemory.of(config, first_card())

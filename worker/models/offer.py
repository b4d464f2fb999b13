"""What the worker offers at a pop: its models, its capabilities, and sizes that fit into memory."""

from __future__ import annotations

from pathlib import Path

from worker.config.keys import BridgeConfig
from worker.devices import first_card
from worker.horde.api import Offer
from worker.models import capabilities
from worker.models.capabilities import Capability
from worker.models.introduction import Introduction, introduction
from worker.models.memory_fit import ComputeMemory, most_pixels
from worker.models.opening import Models


def find_capabilities(config: BridgeConfig, home: Path, models: Models) -> tuple[Capability, ...]:
    """The kinds of jobs that can be served, and what those lack that can't."""
    return capabilities.capabilities(config, config.models_folder(home), models.served.values())


def introduce(config: BridgeConfig, home: Path, models: Models) -> Introduction:
    """As its owner says, or as fits what is there."""
    if config.bridge_agent:
        return Introduction(config.bridge_agent)
    return introduction(config.models_folder(home), models.served.values())


def make_offer(
    config: BridgeConfig, home: Path, models: Models, memory: ComputeMemory | None = None
) -> Offer:
    """What all of these models can do. `memory` is asked for where it is not given."""
    agent = introduce(config, home, models).bridge_agent
    flags = {each.flag: each.is_offered for each in find_capabilities(config, home, models)}
    memory = memory or compute_memory(config)
    return Offer(
        name=config.dreamer_name,
        models=tuple(models.served),
        bridge_agent=agent,
        max_pixels=most_pixels(models.served.values(), memory, config.max_pixels),
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

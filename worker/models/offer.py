"""What the worker offers at a pop: its models, its capabilities, and sizes that fit into memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hordelib.files.model import Model
from worker.config.keys import BridgeConfig
from worker.horde.api import Offer
from worker.models import capabilities
from worker.models.capabilities import Capability, Installed
from worker.models.introduction import Introduction, introduction
from worker.models.memory_fit import CardShare, ComputeMemory, card_shares, most_of_all
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

    The memory is measured now, while the driver answers. Raises what `card_shares` does.
    """
    shares = card_shares(config)

    def make(models: Mapping[str, Model], broken: frozenset[Path]) -> Offer:
        installed = Installed(config.models_folder(home), broken)
        had = {name: it for name, it in models.items() if any(s.has(name) for s in shares)}
        return _make_offer(config.now, installed, had, shares)

    return make


def _make_offer(
    config: BridgeConfig,
    installed: Installed,
    models: Mapping[str, Model],
    shares: Sequence[CardShare],
) -> Offer:
    """What all of these models can do."""
    max_pixels, amount = most_of_all(shares, models.values())
    kinds = capabilities.capabilities(config, installed, models.values())
    flags = {each.flag: each.is_offered for each in kinds}
    return Offer(
        name=config.dreamer_name,
        models=tuple(models),
        bridge_agent=_introduce(config, installed, models.values()).bridge_agent,
        max_pixels=max_pixels,
        amount=amount,
        threads=len(shares),
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
    """Of the largest card. Raises ConfigError and EngineUnusable as `card_shares` does."""
    return max((it.memory for it in card_shares(config)), key=lambda memory: memory.usable_bytes)

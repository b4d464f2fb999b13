"""From a configuration to the parts of a worker: which models it serves, and with what engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from hordelib.errors import JobError
from hordelib.model_store import ModelStore, verify_checkpoint
from worker.board import Board
from worker.bridge import Bridge, Pace
from worker.config import BridgeConfig
from worker.devices import Card, first_card
from worker.engine_process import EngineProcess, Patience
from worker.errors import NothingToServe
from worker.horde_client import HordeClient
from worker.messages import EngineSettings
from worker.wire import Offer


@dataclass(frozen=True, slots=True)
class Models:
    """What the configured names came to: files that serve, and a line for each that doesn't."""

    files: Mapping[str, Path]
    problems: tuple[str, ...]


def find_models(config: BridgeConfig, home: Path) -> Models:
    """The file of each configured model; one that is missing or damaged becomes a problem."""
    custom = {model.name: home / model.filepath for model in config.custom_models}
    store = ModelStore(config.models_folder(home), custom)
    files: dict[str, Path] = {}
    problems: list[str] = []
    for name in config.models:
        try:
            path = store.checkpoint(name)
            verify_checkpoint(path)
        except JobError as error:
            problems.append(str(error))
        else:
            files[name] = path
    return Models(files, tuple(problems))


def make_client(config: BridgeConfig) -> HordeClient:
    return HordeClient(
        config.horde_url, config.api_key.get_secret_value(), client_agent=config.bridge_agent
    )


def make_bridge(config: BridgeConfig, home: Path, board: Board, models: Models) -> Bridge:
    """The worker that the configuration describes. Raises NothingToServe without a model."""
    if not models.files:
        raise NothingToServe("no model can be served: " + "; ".join(models.problems))
    engine = EngineProcess(
        engine_settings(config, home, first_card()),
        Patience(
            model=config.preload_timeout,
            step=config.inference_step_timeout,
            job=config.process_timeout,
        ),
    )
    return Bridge(
        make_client(config),
        engine,
        make_offer(config, tuple(models.files)),
        models.files,
        board=board,
        pace=Pace(waiting_jobs=config.queue_size),
    )


def make_offer(config: BridgeConfig, models: tuple[str, ...]) -> Offer:
    return Offer(
        name=config.dreamer_name,
        models=models,
        bridge_agent=config.bridge_agent,
        max_pixels=config.max_pixels,
        amount=config.max_batch,
        nsfw=config.nsfw,
        blacklist=config.blacklist,
        priority_usernames=config.priority_usernames,
        require_upfront_kudos=config.require_upfront_kudos,
        allow_unsafe_ip=config.allow_unsafe_ip,
        extra_slow_worker=config.extra_slow_worker,
        limit_max_steps=config.limit_max_steps,
    )


def engine_settings(config: BridgeConfig, home: Path, card: Card | None) -> EngineSettings:
    """The reserves in bytes, of the memory that this machine and its card have."""
    return EngineSettings(
        comfyui=home / config.comfyui_path if config.comfyui_path else None,
        device="cuda:0" if card else "auto",  # a card that torch can't use is no CPU worker
        ram_reserve_bytes=config.ram_to_leave_free.bytes_of(psutil.virtual_memory().total),
        vram_reserve_bytes=config.vram_to_leave_free.bytes_of(card.memory_bytes) if card else None,
        log_file=home / "logs" / "engine.log",
    )

"""From a configuration to the parts of a worker: which models it serves, and with what engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hordelib.memory.readings import main_memory
from worker.alchemist.alchemist import Alchemist
from worker.alchemist.offer import form_offer, offered_forms
from worker.alchemist.solving import Solving
from worker.children import engine_main, judge_main
from worker.children.engine import EngineProcess, Patience
from worker.children.forms import FormsProcess
from worker.children.judge_pool import JudgePool
from worker.children.messages import EngineSettings, FormsSettings
from worker.config.keys import BridgeConfig
from worker.config.values import CLIENT_AGENT
from worker.devices import chosen_cards, engine_device
from worker.errors import NothingToServe
from worker.horde.client import HordeClient
from worker.horde.forms import Form
from worker.horde.kinds import Kind
from worker.jobs.drop_limit import MOST_DROPS
from worker.jobs.journal import Journal
from worker.line.bridge import Bridge
from worker.line.companion import Companion
from worker.line.devices.device import Device
from worker.line.intake import TI_FOLDER, Intake
from worker.line.limits import Limits
from worker.line.source_fetcher import SourceFetcher
from worker.loras.adapters import Adapters
from worker.loras.civitai import SITES, Civitai, Hordeling
from worker.loras.finder import LORA, TI, LoraFinder
from worker.loras.store import LoraStore, Quota
from worker.models.files.on_disk import DISK_FLOOR_BYTES
from worker.models.memory_fit import CardShare, card_shares
from worker.models.offer import offer_maker
from worker.models.offered import MakeOffer, OfferedModels
from worker.models.opening import Models
from worker.net.downloads import Downloader
from worker.net.fetch import Web
from worker.net.refusal_memo import DownloadMemo
from worker.prediction import seconds_file
from worker.prediction.predictor import SecondsPredictor
from worker.prediction.seconds_file import SecondsFile
from worker.safety.gallery import Gallery
from worker.safety.judging import Judging
from worker.safety.policy import censorship_of, judge_settings
from worker.scribe.scribe import Scribe
from worker.service.state_folder import STATE

LORA_FOLDER = "lora"
TI_QUOTA_BYTES = 1 << 30
GB = 10**9


def make_client(config: BridgeConfig) -> HordeClient:
    return HordeClient(
        config.horde_url, config.api_key.get_secret_value(), client_agent=CLIENT_AGENT
    )


@dataclass(frozen=True, slots=True)
class Children:
    """What runs in the child processes. Tests put mains that fail on purpose in their place."""

    engine: Callable[[Any, Any], None] = engine_main.main
    judge: Callable[[Any, Any], None] = judge_main.main
    gallery: Gallery | None = None  # gets the pictures that the judge lets pass
    processors: int = 0  # engines without a card, so many in place of the machine's cards
    most_drops: int = MOST_DROPS  # within an hour: tests let more jobs fail than a horde would


OURS = Children()


def make_bridge(
    config: BridgeConfig,
    home: Path,
    models: Models,
    journal: Journal,
    *,
    intake: Intake | None = None,
    children: Children = OURS,
) -> Bridge:
    """The worker that the configuration describes. Raises NothingToServe without a model.

    `intake` replaces the one that follows from what is installed.
    """
    if not models.served and config.makes_pictures:
        raise NothingToServe("no model can be served: " + "; ".join(models.problems))
    client = make_client(config)
    devices = make_devices(config, home, journal.predictor, children)
    judging = make_judging(config, home, children, len(devices))
    bridge = Bridge(
        client,
        devices,
        intake or make_intake(config, home, models),
        judging,
        journal,
        Limits(
            waiting_jobs=config.queue_size,
            stop_seconds=config.stop_timeout,
            pictures=config.makes_pictures,
            engine=not config.scribe_only,
        ),
    )
    if config.scribe_name:
        scribe = Scribe(client, config)
        bridge.accompany(Companion(scribe, client, journal.of(Kind.text)))
    if config.alchemist_name and not config.scribe_only:
        bridge.accompany(make_alchemist(config, home, client, judging, journal))
    return bridge


def make_devices(
    config: BridgeConfig, home: Path, predictor: SecondsPredictor, children: Children = OURS
) -> list[Device]:
    """An engine for each card, or one for the processor. Raises what `card_shares` does.

    `predictor` is of the first card; cards of other kinds have predictors of their own.
    """
    shares: Sequence[CardShare | None] = (
        children.processors * [None] if children.processors else card_shares(config)
    )
    kinds = {_kind(shares[0]): predictor}
    devices: list[Device] = []
    for number, share in enumerate(shares):
        kind = _kind(share)
        if kind not in kinds:
            file = home / STATE / f"seconds-{number}.json"
            kinds[kind] = SecondsPredictor(SecondsFile(file, kind))
        engine = EngineProcess(
            engine_settings(config, home, share, number), _patience(config), children.engine
        )
        name = "" if len(shares) == 1 else share.name if share else f"processor {number}"
        devices.append(Device(engine, name, kinds[kind], share))
    return devices


def _kind(share: CardShare | None) -> str:
    return share.card.name if share and share.card else "cpu"


def _patience(config: BridgeConfig) -> Patience:
    return Patience(
        load=config.preload_timeout,
        first_step=config.preload_timeout,
        step=config.inference_step_timeout,
        decode=config.preload_timeout,
        job=config.process_timeout,
    )


def make_alchemist(
    config: BridgeConfig, home: Path, client: HordeClient, judging: Judging, journal: Journal
) -> Companion[Form]:
    """Serves forms beside the line of pictures, by the same client, judge and ledger."""
    models = config.models_folder(home)
    solving = Solving(
        SourceFetcher(config.horde_url, client_agent=CLIENT_AGENT),
        FormsProcess(FormsSettings(home / "logs" / "alchemist.log")),
        judging,
        models,
    )
    offer = partial(form_offer, config)
    alchemist = Alchemist(client, offered_forms(config, models), offer, solving)
    return Companion(alchemist, client, journal.of(Kind.form))


def make_predictor(state: Path, cards: Sequence[str] = ()) -> SecondsPredictor:
    """What the state folder says of the speed of the first of these cards, or of all there are."""
    first = next(iter(chosen_cards(cards)), None)
    return SecondsPredictor(SecondsFile(state / seconds_file.NAME, first.name if first else "cpu"))


def make_intake(
    config: BridgeConfig,
    home: Path,
    models: Models,
    make_offer: MakeOffer | None = None,
    adapters: Adapters | None = None,
) -> Intake:
    """What takes jobs in for these models, with an offer and adapters of the configuration."""
    folder = config.models_folder(home)
    return Intake(
        OfferedModels(make_offer or offer_maker(config, home), models.served, lambda: config.now),
        folder,
        SourceFetcher(config.horde_url, client_agent=CLIENT_AGENT),
        adapters or make_adapters(config, folder),
        scores=config.aesthetic_score,
    )


def make_adapters(
    config: BridgeConfig, models_folder: Path, sites: tuple[str, ...] = SITES
) -> Adapters:
    """What finds LoRAs and textual inversions, on disk and at `sites`."""
    token = config.civitai_api_token
    tokens = {site: token.get_secret_value() for site in sites} if token else {}
    web = Web(CLIENT_AGENT, tokens)
    civitai = Civitai(web, sites, nsfw=lambda: config.now.nsfw)
    downloader = Downloader(web)
    memo = DownloadMemo(models_folder / LORA_FOLDER / "refused.json")
    return Adapters(
        LoraFinder(
            LORA,
            _store(models_folder / LORA_FOLDER, lambda: config.now.max_lora_cache_size * GB),
            civitai,
            downloader,
            memo,
        ),
        LoraFinder(
            TI,
            _store(models_folder / TI_FOLDER, lambda: TI_QUOTA_BYTES),
            civitai,
            downloader,
            memo,
            copies=Hordeling(web),
        ),
    )


def _store(folder: Path, most_bytes: Callable[[], int]) -> LoraStore:
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = lambda: shutil.disk_usage(folder).free  # noqa: E731
    return LoraStore(folder, Quota(most_bytes, DISK_FLOOR_BYTES, free_bytes))


def make_judging(
    config: BridgeConfig, home: Path, children: Children = OURS, devices: int = 1
) -> Judging:
    return Judging(
        JudgePool.of_devices(devices, judge_settings(config, home), children.judge),
        lambda: censorship_of(config.now),
        children.gallery,
    )


def engine_settings(
    config: BridgeConfig, home: Path, share: CardShare | None = None, number: int = 0
) -> EngineSettings:
    """The reserves in bytes, of the memory that this machine and its card have."""
    card, suffix = share.card if share else None, f"-{number}" if number else ""
    return EngineSettings(
        comfyui=home / config.comfyui_path if config.comfyui_path else None,
        device=engine_device(card),
        ram_reserve_bytes=config.ram_to_leave_free.bytes_of(main_memory().total_bytes),
        vram_reserve_bytes=share.memory.reserve_bytes if share and card else None,
        log_file=home / "logs" / f"engine{suffix}.log",
        memory_file=home / STATE / f"memory{suffix}.json",
        card=card.uuid if card else "",
        fast=config.fast,
    )

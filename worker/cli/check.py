"""Is everything there that the worker needs? One line per prerequisite, a remedy for each no."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from hordelib.comfyui.device import default_folder
from hordelib.comfyui.versions import version_in
from hordelib.errors import ModelBroken
from hordelib.files.model import Model
from hordelib.job.control_weights import NON_COMMERCIAL
from hordelib.job.questions import Topic
from hordelib.setup.comfyui_files import SOURCES
from worker.alchemist.offer import lacking_for, offered_forms
from worker.cli.check_device import device
from worker.cli.check_texts import text_findings
from worker.cli.notify_command import addresses_of_notices
from worker.config.config import load_config
from worker.config.environment import read_environment
from worker.config.keys import BridgeConfig
from worker.config.old_keys import in_short
from worker.errors import ConfigError, DocumentMissing, EngineUnusable, JudgeUnusable
from worker.models.files.control_files import (
    NON_COMMERCIAL_NAMES,
    annotator_entries,
    control_net_entries,
)
from worker.models.files.on_disk import FileStock, State, size_text
from worker.models.files.unlisted_weights import question_entries, transparency_entries
from worker.models.introduction import RULE
from worker.models.inventory import Inventory, ModelsFolder, insist_on_cache_home, take_inventory
from worker.models.memory_fit import (
    ComputeMemory,
    Misfit,
    card_shares,
    misfit,
    most_at_once,
    most_pixels,
)
from worker.models.offer import compute_memory, find_capabilities, introduce
from worker.models.opening import Models, find_models
from worker.models.reference import ReferenceEntry
from worker.models.selection import UNCOUNTED
from worker.safety.policy import judge_settings, unfound
from worker.safety.policy import remedy as safety_remedy
from worker.service.releases import news
from worker.service.updates import way_to_take
from worker.setup.account import account_findings
from worker.setup.finding import Finding, Verdict, failed, ok
from worker.version import VERSION

MIN_PYTHON = (3, 11)
LOW_DISK_BYTES = 5 * 10**9


def findings(home: Path, config_file: Path) -> Iterator[Finding]:
    """All prerequisites, each as soon as it is known, in the order of their dependence."""
    yield _python()
    config = _load(home, config_file)
    if isinstance(config, BridgeConfig) and config.scribe_only:
        yield ok("configuration", str(config_file))
        yield from _notes(config)
        yield from text_findings(config)
        yield from account_findings(config)
        return
    yield from device(config.fast if isinstance(config, BridgeConfig) else ())
    yield _comfyui(config if isinstance(config, BridgeConfig) else None, home)
    if isinstance(config, BridgeConfig):
        yield version_finding(config, home)
        yield _disk(config.models_folder(home))
        yield ok("configuration", str(config_file))
        yield from _notes(config)
        yield from _cards(config)
        inventory = take_inventory(ModelsFolder.of(config, home))
        models = find_models(config, home, inventory)
        yield from _models(models, inventory)
        yield from _memory(config, models)
        yield from control_files(inventory.folder)
        if config.makes_pictures:
            yield from _transparency(inventory.folder)
            yield from kinds_of_jobs(config, home, models)
            yield from introduced(config, home, models)
        yield from alchemist(config, inventory.folder)
        yield from text_findings(config)
        yield _safety(config, home)
        yield from addresses_of_notices(config)
        yield from account_findings(config)
    else:
        yield _disk(home)
        yield from config
        for name in ("model files", "safety", "horde", "api key", "worker name"):
            yield Finding(name, Verdict.skipped, "needs the configuration")


def _notes(config: BridgeConfig) -> Iterator[Finding]:
    return (Finding("configuration", Verdict.warning, note) for note in in_short(config.notes))


def version_finding(config: BridgeConfig, home: Path) -> Finding:
    """Whether there is a newer release, as far as anybody may be asked."""
    try:
        newer = news(config, ModelsFolder.of(config, home).documents)
    except DocumentMissing:
        return ok("version", f"{VERSION}; whether there is a newer one can't be asked now")
    if newer is None:
        return ok("version", VERSION)
    told = f"{VERSION}, and {newer.version} is there: {newer.link}"
    return Finding("version", Verdict.warning, told, way_to_take())


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return failed("python", version, "install Python 3.11 or newer")
    return ok("python", version)


def _load(home: Path, config_file: Path) -> BridgeConfig | list[Finding]:
    if not (config_file.is_file() or read_environment(os.environ).variables):
        remedy = "run ./horde-bridge.sh setup, which asks and writes it"
        return [failed("configuration", f"there is no {config_file}", remedy)]
    try:
        config = load_config(config_file)
        insist_on_cache_home(config, home)
        return config
    except ConfigError as error:
        remedy = f"edit {config_file}"
        return [failed("configuration", problem, remedy) for problem in error.problems]


def _comfyui(config: BridgeConfig | None, home: Path) -> Finding:
    own = home / config.comfyui_path if config and config.comfyui_path else None
    folder = own or default_folder()
    version = version_in(folder)
    if not version:
        remedy = "correct comfyui_path" if own else "run ./horde-bridge.sh demo, which fetches it"
        return failed("ComfyUI", f"not in {folder}", remedy)
    if version not in SOURCES:
        return failed("ComfyUI", f"{version} in {folder}", f"use version {' or '.join(SOURCES)}")
    return ok("ComfyUI", f"{version} in {folder}")


def _disk(folder: Path) -> Finding:
    """Of the folder where models go, or of the nearest above it that is there."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free_bytes = shutil.disk_usage(there).free
    detail = f"{size_text(free_bytes)} free in {there}"
    if not os.access(there, os.W_OK):
        return failed("disk", f"{there} can't be written", "change its owner or its permissions")
    if free_bytes < LOW_DISK_BYTES:
        return failed("disk", detail, f"free {size_text(LOW_DISK_BYTES)} at least")
    return ok("disk", detail)


def _models(models: Models, inventory: Inventory) -> Iterator[Finding]:
    for name, model in models.served.items():
        files = ", ".join(str(path) for path in model.files.values())
        yield ok("model files", f"{name} ({model.family.name}): {files}")
    coming = [stock.name for stock in inventory.coming]
    if coming:
        yield ok("model files", f"run downloads or verifies first: {', '.join(coming)}")
        yield ok("downloads", inventory.plan.summary)
    for note in inventory.notes:
        remedy = "go online and run ./horde-bridge.sh models verify, which compares your files"
        yield Finding("model reference", Verdict.warning, note, remedy)
    for problem in models.problems:
        remedy = NAME_THEM if problem.endswith(UNCOUNTED) else MEND_OR_LEAVE_OUT
        yield failed("model files", problem, remedy)


NAME_THEM = "go online, or put names of models into models_to_load in the group's place"
MEND_OR_LEAVE_OUT = (
    "put a whole file of the model there, or take its name out of models_to_load; "
    "./horde-bridge.sh models top shows names that the horde knows"
)


def _cards(config: BridgeConfig) -> Iterator[Finding]:
    """Those that make pictures, where there are several or some are named."""
    try:
        shares = card_shares(config)
    except ConfigError as error:
        for problem in error.problems:
            yield failed("cards", problem, "correct devices in bridgeData.yaml")
    except EngineUnusable:  # what is wrong with the driver was said already
        return
    else:
        for share in shares if config.devices or len(shares) > 1 else ():
            own = f", for {', '.join(sorted(share.only))}" if share.only else ""
            usable = share.memory.usable_bytes / (1 << 30)
            yield ok("cards", f"{share.name}: the worker may use {usable:.1f} GiB{own}")


def _memory(config: BridgeConfig, models: Models) -> Iterator[Finding]:
    """Models that could never run with the memory that is left to them."""
    with suppress(ConfigError, EngineUnusable):  # what is wrong with the device was said already
        memory = compute_memory(config)
        found = [_misfit(name, model, memory) for name, model in models.served.items()]
        for problem in filter(None, found):
            yield failed("memory", problem.told, problem.remedy)
        if not any(found):
            told = (
                f"the worker may use {memory.usable_bytes / (1 << 30):.1f} GiB ({memory.setting})"
            )
            yield ok("memory", told)
            yield from _split(config, models, memory)


def _misfit(name: str, model: Model, memory: ComputeMemory) -> Misfit | None:
    """What is wrong with a file that can't be read is the word on its model."""
    try:
        return misfit(name, model, memory)
    except (ModelBroken, OSError) as error:
        return Misfit(f"{name}: {error}", "put the whole file there")


def _split(config: BridgeConfig, models: Models, memory: ComputeMemory) -> Iterator[Finding]:
    """Models for which a full batch of the largest pictures is made in parts."""
    pixels = most_pixels(models.served.values(), memory, config.max_pixels)
    for name, model in models.served.items():
        with suppress(ModelBroken, OSError):  # a file that went bad since `misfit` has read it
            fitting = most_at_once(model, memory, pixels, config.max_batch)
            if fitting < config.max_batch:
                told = f"{fitting} of {config.max_batch} of the largest pictures fit at once"
                yield ok("memory", f"{name}: {told}; a full batch is made in parts")


def _transparency(folder: ModelsFolder) -> Iterator[Finding]:
    yield from _other_files(folder, "transparent", transparency_entries())


def control_files(folder: ModelsFolder) -> Iterator[Finding]:
    """Files of control types that no list of the horde's has: whether they are what they should
    be, how that is known, and what their licences forbid."""
    entries = (*annotator_entries(), *control_net_entries())
    yield from _other_files(folder, "control types", entries)
    files = (file for entry in entries for file in folder.look(entry).files)
    there = [file for file in files if file.path.is_file()]
    by_size = [file.path.name for file in there if file.about.by_size]
    if by_size:
        told = "verified by size and format alone, since no sha256 of them is known"
        yield ok("control types", f"{told}: {', '.join(by_size)}")
    bound = [file.path.name for file in there if file.path.name in NON_COMMERCIAL_NAMES]
    if bound:
        yield ok("licences", f"{NON_COMMERCIAL}: {', '.join(bound)}")


def _other_files(
    folder: ModelsFolder, kind: str, entries: Iterable[ReferenceEntry]
) -> Iterator[Finding]:
    """What is there of these entries and is not what the worker knows that it has to be."""
    for entry in entries:
        for file in folder.look(entry).files:
            if file.path.is_file() and not _is_as_listed(folder, file):
                told = f"{file.path} is cut off, damaged, or another file"
                remedy = f'remove it, and run ./horde-bridge.sh models add "{entry.name}"'
                yield failed(kind, told, remedy)


def _is_as_listed(folder: ModelsFolder, file: FileStock) -> bool:
    if file.about.by_size:
        return file.state is not State.other
    try:
        return folder.verified.found(file.path) == file.about.sha256
    except OSError:  # nobody can read it
        return False


def kinds_of_jobs(config: BridgeConfig, home: Path, models: Models) -> Iterator[Finding]:
    """Kinds of jobs that would be offered if their files were there."""
    offered: list[str] = []
    for kind in find_capabilities(config, home, models):
        if kind.missing:
            way = _WAYS.get(kind.flag, "put the files there") if kind.lacks_files else ""
            quiet = f"set {kind.flag}: false to hide this warning"
            remedy = f"{way}, or {quiet}" if way else quiet
            yield Finding(kind.flag, Verdict.warning, f"not offered: {kind.missing}", remedy)
        elif kind.is_offered:
            offered.append(kind.flag.removeprefix("allow_"))
    yield ok("kinds of jobs", ", ".join(["txt2img", *offered]))


_WAYS = {
    "allow_controlnet": "./horde-bridge.sh models add controlnets fetches them",
    "allow_extended_controlnet": (
        "./horde-bridge.sh models add controlnets 'extended controlnets' fetches them"
    ),
    "allow_post_processing": (
        "./horde-bridge.sh models add upscalers 'face fixers' fetches all but rembg's"
        " (docs/jobs.md says where that is)"
    ),
}


def introduced(config: BridgeConfig, home: Path, models: Models) -> Iterator[Finding]:
    """What the horde pays a worker that is introduced as this one is, and keeps from it."""
    how = introduce(config, home, models)
    agent = how.bridge_agent.partition(":http")[0]
    yield ok("reward", f"{100 * how.share:.0f} % of each image's, as {agent}: {RULE}")
    if how.lost:
        yield Finding("kinds of jobs", Verdict.warning, how.lost, how.remedy)


def alchemist(config: BridgeConfig, folder: ModelsFolder) -> Iterator[Finding]:
    """Which forms are offered, and what the others lack; whether pictures can be scored."""
    if config.alchemist_name is not None:
        yield from _forms(config, folder)
    is_scored = config.aesthetic_score and config.makes_pictures
    lack = lacking_for(Topic.aesthetic, folder.path) if is_scored else ""
    if lack:
        told = f"pictures are not scored: the models folder lacks {lack}"
        yield Finding("aesthetic_score", Verdict.warning, told, ADD_ALCHEMIST)
    if config.alchemist_name is not None or config.aesthetic_score:
        yield from _other_files(folder, "alchemist", question_entries())


ADD_ALCHEMIST = "run ./horde-bridge.sh models add alchemist"


def _forms(config: BridgeConfig, folder: ModelsFolder) -> Iterator[Finding]:
    offered = offered_forms(config, folder.path)
    told = ", ".join(offered.forms) or "no form can be done"
    yield ok("alchemist", told) if offered.forms else failed("alchemist", told, "see forms")
    if offered.missing:
        sizes = {name: row.size_bytes for name, row in folder.reference().entries.items()}
        lacking = "; ".join(
            f"{form} lacks {lack}{f' ({size_text(sizes[form])})' if sizes.get(form) else ''}"
            for form, lack in offered.missing.items()
        )
        remedy = f"{ADD_ALCHEMIST}, or name in forms what is to be offered"
        told = f"not offered (files belong in the models folder): {lacking}"
        yield Finding("alchemist", Verdict.warning, told, remedy)


def _safety(config: BridgeConfig, home: Path) -> Finding:
    try:
        lack = unfound(config, home)
    except JudgeUnusable as error:
        return failed("safety", str(error), f"run {safety_remedy()}")
    if lack:
        return Finding(
            "safety", Verdict.warning, lack, f"run {safety_remedy()}; the horde asks for this check"
        )
    judges = "NudeNet, horde_safety" if judge_settings(config, home).horde_safety else "NudeNet"
    return ok("safety", judges)

"""How well pictures are judged on this machine, and whether the owner is content with that."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from hordelib.safety.csam import PACKAGE, is_installed
from worker.children.messages import JudgeSettings
from worker.command_line import FETCH_SAFETY, INSTALL_SAFETY
from worker.config.keys import BridgeConfig
from worker.errors import JudgeUnusable
from worker.models.files.checksums import VerifiedFiles
from worker.models.files.on_disk import State, look
from worker.models.files.unlisted_weights import safety_entry
from worker.net.addresses import is_this_machine
from worker.safety.censorship import Censorship

# The names of the one public horde: the second is its older one.
PUBLIC_HORDES = ("aihorde.net", "stablehorde.net")
COSTS = "20 MB of packages, 1.6 GB of weights and 3.5 GB of memory"  # docs/benchmarks.md


def judge_settings(config: BridgeConfig, home: Path) -> JudgeSettings:
    """With horde_safety wherever it can be used."""
    models = config.models_folder(home)
    return JudgeSettings(
        models=models, horde_safety=not missing(models), log_file=home / "logs" / "judge.log"
    )


def censorship_of(config: BridgeConfig) -> Censorship:
    """What the owner wants censored."""
    return Censorship(config.nsfw, config.censor_nsfw, config.censorlist)


def unfound(config: BridgeConfig, home: Path) -> str:
    """What nobody looks for here, why, and the remedy; "" where there is nothing to say.

    Raises JudgeUnusable where the configuration does not put up with it.
    """
    if config.scribe_only:  # no picture leaves
        return ""
    lack = missing(config.models_folder(home))
    if lack and is_required(config):
        default = "" if config.safety else ", the default at aihorde.net"
        raise JudgeUnusable(f"safety: required{default}, but {lack}")
    if not lack or is_this_machine(config.horde_url):
        return ""
    return f"safety: pictures are not checked for CSAM: {lack}"


def missing(models: Path) -> str:
    """What keeps horde_safety from being used, with the remedy and what it costs; "" for nothing.

    A file whose content is not known is read for it once.
    """
    if not is_installed():
        return f"{PACKAGE} is not installed: run {remedy()} (it takes {COSTS})"
    verified = VerifiedFiles(models)
    for file in look(models, safety_entry(), verified).files:
        if file.state in (State.missing, State.incomplete):
            told = f"the weights of {PACKAGE} are not all in {file.path.parent}"
            return f"{told}: run {remedy()} (it takes {COSTS})"
        if verified.found(file.path) != file.about.sha256:
            return f"{file.path} is damaged, or another file: remove it, then run {remedy()}"
    return ""


def remedy() -> str:
    """What the owner types to have horde_safety."""
    return FETCH_SAFETY if is_installed() else INSTALL_SAFETY


def is_required(config: BridgeConfig) -> bool:
    """The owner's word; without one, what the horde expects of those who serve it."""
    return config.safety == "required" if config.safety else is_public(config.horde_url)


def is_public(horde_url: str) -> bool:
    """Whether it is the AI Horde itself, not a horde of somebody's own."""
    host = (urlsplit(horde_url).hostname or "").rstrip(".")
    return any(host == name or host.endswith(f".{name}") for name in PUBLIC_HORDES)

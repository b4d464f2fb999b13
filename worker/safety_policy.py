"""How well pictures are judged on this machine, and whether the owner is content with that."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from hordelib import horde_safety_judge
from worker.config import BridgeConfig
from worker.errors import JudgeUnusable
from worker.messages import JudgeSettings


def judge_settings(config: BridgeConfig, home: Path) -> JudgeSettings:
    """With horde_safety wherever it can be used."""
    models = config.models_folder(home)
    return JudgeSettings(
        models=models,
        horde_safety=not horde_safety_judge.missing(models),
        log_file=home / "logs" / "judge.log",
    )


def unfound(config: BridgeConfig, home: Path) -> str:
    """What nobody looks for here, why, and the remedy; "" where there is nothing to say.

    Raises JudgeUnusable where the configuration does not put up with it.
    """
    missing = horde_safety_judge.missing(config.models_folder(home))
    if not missing or not is_public(config.horde_url):
        return ""
    if config.safety == "required":
        raise JudgeUnusable(f"safety: required, but {missing}")
    return f"safety: pictures are not checked for CSAM: {missing}"


def is_public(horde_url: str) -> bool:
    """Whether others than this machine's users may see what is made."""
    host = urlsplit(horde_url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"

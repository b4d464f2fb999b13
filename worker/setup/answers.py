"""What the owner of a new worker is asked, and the keys of bridgeData.yaml that follow from it."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType

from worker.config.config import config_of
from worker.config.document import TEMPLATE_NAME
from worker.config.editing import Value, change_settings, create_settings
from worker.errors import ConfigError

Settings = Mapping[str, Value]
REGISTER = "https://aihorde.net/register"


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a machine is for: in words, and the keys that make the worker fit for it."""

    words: str
    settings: Settings


PURPOSES: Mapping[str, Purpose] = MappingProxyType(
    {
        "horde": Purpose("for the horde alone: the worker serves day and night", {}),
        "shared": Purpose(
            "also for work and games: the card is free while somebody uses the machine, while it"
            " runs on battery, and while another program computes on the card",
            {
                "user_active": 10,
                "on_battery": True,
                "others_on_card": True,
                "pause_for": ["*.exe", "steam_app*", "gamescope*"],
            },
        ),
        "nights": Purpose(
            "for the horde at night: the card is free from 07:00 to 22:00",
            {"serve_hours": ["22:00-07:00"]},
        ),
    }
)
_HEADING = "\n# Chosen at the set-up; docs/service.md explains those of what the machine is for.\n"
ENOUGH: Mapping[str, object] = {
    "api_key": "not-asked-yet",
    "dreamer_name": "not-asked-yet",
    "models_to_load": ["not-asked-yet"],
}


@dataclass(frozen=True, slots=True)
class Answers:
    """All that is asked; what is empty or None stays as the file has it, or the environment.

    `place` has keys that are not asked for: those of where things are.
    """

    api_key: str
    dreamer_name: str
    purpose: str
    nsfw: bool | None
    models: tuple[str, ...]
    max_power: int
    place: Settings

    def settings(self) -> dict[str, Value]:
        """What goes into the file; None takes a key out."""
        settings: dict[str, Value] = {**self.place}
        if self.api_key:
            settings["api_key"] = self.api_key
        if self.dreamer_name:
            settings["dreamer_name"] = self.dreamer_name
        if self.nsfw is not None:
            settings["nsfw"] = self.nsfw
        if self.models:
            settings |= {"models_to_load": list(self.models), "max_power": self.max_power}
        if self.purpose:
            others = [key for each in PURPOSES.values() for key in each.settings]
            settings |= {**dict.fromkeys(others), **PURPOSES[self.purpose].settings}
        return settings


def problem_with(key: str, value: Value) -> str:
    """Why this is no value of the key, in one line; "" for nothing."""
    try:
        config_of({**ENOUGH, key: value})
    except ConfigError as error:
        told = [line for line in error.problems if line.startswith(key)]
        return told[0] if told else ""
    return ""


def require_writable(folder: Path) -> None:
    """Before anybody is asked for what could not be kept. Raises OSError."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def write_settings(config_file: Path, settings: Settings) -> Path | None:
    """Into a new file with the template's comments, or into the one that is there.

    The path of the copy of what was there; None for nothing. Raises ConfigError and OSError, and
    changes nothing then.
    """
    if config_file.exists():
        return change_settings(config_file, settings)
    template = template_file().read_text("utf-8")
    given = {key: value for key, value in settings.items() if value is not None}
    is_more = any(f"\n{key}:" not in template for key in given)
    create_settings(config_file, template + _HEADING * is_more, given)
    return None


def template_file() -> Path:
    """Beside the packages in a clone; pip puts it into the environment's share folder."""
    beside = Path(__file__).parents[2] / TEMPLATE_NAME
    installed = Path(sysconfig.get_path("data")) / "share" / "dreamer" / TEMPLATE_NAME
    return beside if beside.is_file() else installed

"""The keys of bridgeData.yaml for the page: what each does, what it is, and how it is changed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from worker.config.document import read_document
from worker.config.editing import Value, change_settings
from worker.config.environment import read_environment
from worker.config.keys import EXPECTS, SECRETS, BridgeConfig
from worker.config.live import needs
from worker.errors import ConfigError
from worker.page.access import hashed, is_hash

log = logging.getLogger(__name__)

# They say to whom the api key is sent, and what code and files are loaded.
IN_THE_FILE = frozenset(
    {"horde_url", "model_reference", "comfyui_path", "cache_home", "custom_models", "devices"}
)
LONGEST_VALUE = 10_000  # characters, or entries
PASSWORD = "page_password"


class Outdated(Exception):
    """The file is another one by now than the one that was shown."""


def settings_shown(config_file: Path) -> dict[str, Any]:
    """Every key, as JSON. Raises ConfigError where the file can't be read."""
    given, variables = _given(config_file)
    fields = BridgeConfig.model_fields
    keys = [_shown(key, fields[key], given, variables.get(key, "")) for key in EXPECTS]
    return {"version": version_of(config_file), "keys": keys}


def version_of(config_file: Path) -> str:
    """What two browsers compare, so that neither undoes what the other has just saved."""
    content = config_file.read_bytes() if config_file.exists() else b""
    return hashlib.sha256(content).hexdigest()


def save_settings(config_file: Path, version: str, changes: Mapping[str, Value]) -> list[str]:
    """Write them with the file's comments kept; the keys that were written.

    Raises Outdated, ConfigError with a line for each problem, and OSError; nothing is changed then.
    """
    if version != version_of(config_file):
        raise Outdated
    _, variables = _given(config_file)
    problems: list[str] = []
    values: dict[str, Value] = {}
    for key, value in changes.items():
        if told := _obstacle(key, value, variables):
            problems.append(told)
        else:
            values[key] = _to_write(key, value)
    if problems:
        raise ConfigError(tuple(problems))
    if values:
        change_settings(config_file, values).unlink()  # the page itself can change it back
        log.info("page: saved %s", ", ".join(values))
    return [*values]


def keep_hash(config_file: Path, config: BridgeConfig) -> str:
    """The hash of page_password, which the file has from now on in its place; "" for none."""
    if config.page_password is None:
        return ""
    password = config.page_password.get_secret_value()
    if is_hash(password):
        return password
    kept = hashed(password)
    if PASSWORD not in read_environment(os.environ).variables:
        try:
            change_settings(config_file, {PASSWORD: kept}).unlink()
        except (ConfigError, OSError) as error:
            log.warning("page_password stays readable in %s: %s", config_file, error)
    return kept


def _given(config_file: Path) -> tuple[Mapping[str, object], Mapping[str, str]]:
    """The values, and the environment's variable of each key that has one."""
    environment = read_environment(os.environ)
    settings = read_document(config_file).settings if config_file.exists() else {}
    return settings | environment.settings, environment.variables


def _shown(
    key: str, field: FieldInfo, given: Mapping[str, object], variable: str
) -> dict[str, Any]:
    is_secret = key in SECRETS
    default = None if field.default is PydanticUndefined else _plain(field.default)
    kind, choices = _kind(key, field)
    return {
        "key": key,
        "words": " ".join((field.description or "").split()),
        "expects": EXPECTS[key],
        "kind": kind,
        "choices": choices,
        "default": default,
        "value": None if is_secret else _plain(given.get(key, default)),
        "is_set": key in given,
        "is_required": field.is_required(),
        "variable": variable,
        "in_file": key in IN_THE_FILE,
        "needs": needs(key),
    }


def _kind(key: str, field: FieldInfo) -> tuple[str, list[str]]:
    """With what it is shown, and what there is to choose from."""
    annotation = field.annotation
    if key in SECRETS:
        return "secret", []
    if annotation is bool:
        return "switch", []
    if annotation is int:
        return "number", []
    if get_origin(annotation) is tuple:
        return "list", []
    literals = [each for each in get_args(annotation) if get_origin(each) is Literal]
    return ("choice", list(get_args(literals[0]))) if literals else ("text", [])


def _plain(value: Any) -> object:
    """As it would stand in the file."""
    if isinstance(value, bool | int | float | str | None):
        return value
    return [str(each) for each in value] if isinstance(value, list | tuple) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _obstacle(key: str, value: Value, variables: Mapping[str, str]) -> str:
    """Why this is not to be written, "" for nothing."""
    if key not in EXPECTS:
        return f"{key[:60]}: no such key"
    if key in variables:
        return f"{key}: {variables[key]} is set in the environment, and counts instead"
    if key in IN_THE_FILE:
        return f"{key}: is changed in the file itself alone, for safety"
    if not isinstance(value, int | None) and len(value) > LONGEST_VALUE:
        return f"{key}: is too long; expected {EXPECTS[key]}"
    if key == PASSWORD and value and not 8 <= len(str(value)) <= 1000:
        return f"{key}: expected {EXPECTS[key]}"
    return ""


def _to_write(key: str, value: Value) -> Value:
    """An empty field counts as a key that is left out; only the page's "" means something."""
    if value == "" and key != "page":
        return None
    if key == PASSWORD and isinstance(value, str) and not is_hash(value):
        return hashed(value)
    return value

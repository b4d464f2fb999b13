"""bridgeData.yaml, checked once: past `load_config` there is only the frozen `BridgeConfig`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.config.document import ConfigDocument, document_of, read_document
from worker.config.environment import read_environment
from worker.config.keys import ENTRY_EXPECTS, EXPECTS, SECRETS, BridgeConfig
from worker.config.values import SHARE, is_loopback
from worker.errors import ConfigError

_ALL_BUT_A_LITTLE_PERCENT: Final = 50


def load_config(path: Path) -> BridgeConfig:
    """The configuration in `path`, in which the environment's variables replace what the file says.

    Raises ConfigError with every problem found, a line each.
    """
    return _checked(_document(path))


def config_of(settings: Mapping[str, object]) -> BridgeConfig:
    """What a file with these keys would be, the environment's variables included.

    Raises ConfigError as `load_config` does.
    """
    return _checked(document_of(settings).with_environment(read_environment(os.environ)))


def _checked(document: ConfigDocument) -> BridgeConfig:
    problems = [*document.problems.values()]
    try:
        config = BridgeConfig.model_validate(
            {
                **_of_one_kind(document),
                **document.settings,
                "notes": document.notes + _reserve_notes(document),
            }
        )
    except ValidationError as error:
        problems += _problem_lines(error, document)
        raise ConfigError(tuple(problems)) from None  # the cause would hold the api key
    problems += _of_kinds(config)
    serves_none = config.makes_pictures and not (config.models or config.serves_dynamically)
    if serves_none and "models_to_load" not in document.problems:
        problems.append(f"models_to_load: names no model; expected {EXPECTS['models_to_load']}")
    if config.page and not config.page_password and not _is_for_this_machine(config.page):
        problems.append(
            f"page: {config.page} is open to others, and there is no page_password; set one, or"
            " leave page out"
        )
    if problems:
        raise ConfigError(tuple(problems))
    return config


def _of_one_kind(document: ConfigDocument) -> dict[str, object]:
    """Without pictures, their worker needs no name: what is said of a worker is of the other."""
    for only, name in (("scribe_only", "scribe_name"), ("alchemist_only", "alchemist_name")):
        if document.settings.get(only) is True and name in document.settings:
            return {"dreamer_name": document.settings[name]}
    return {}


def _of_kinds(config: BridgeConfig) -> Iterator[str]:
    """What the kinds of work need beside each other: names of their own, and a text server."""
    for only, name in (("alchemist_only", "alchemist_name"), ("scribe_only", "scribe_name")):
        if getattr(config, only) and getattr(config, name) is None:
            yield f"{name}: missing; expected {EXPECTS[name]}"
    if config.alchemist_only and config.scribe_only:
        yield "scribe_only: true, and so is alchemist_only; expected one of them, or neither"
    if config.scribe_name is not None and config.text_backend is None:
        yield f"text_backend: missing; expected {EXPECTS['text_backend']}"
    names: dict[str | None, str] = {None: ""}
    keys = ("dreamer_name", "alchemist_name", "scribe_name")
    for key in keys if config.makes_pictures else keys[1:]:
        name = getattr(config, key)
        if names.setdefault(name, key) != key and name is not None:
            told = "expected the name of one kind of worker alone"
            yield f"{key}: {name!r} is {names[name]}; {told}"


def _is_for_this_machine(address: str) -> bool:
    return is_loopback(urlsplit(address).hostname or "")


def models_place(path: Path) -> BridgeConfig:
    """A configuration of which only `models_folder` counts: a set-up may need it before the rest.

    The file may be missing, or still have to be filled in. Raises ConfigError where it can't be
    read, and for its cache_home.
    """
    unused = {"api_key": "unused", "dreamer_name": "unused"}
    document = _document(path, may_be_missing=True)
    place = {key: value for key, value in document.settings.items() if key == "cache_home"}
    try:
        return BridgeConfig.model_validate(unused | place)
    except ValidationError as error:
        raise ConfigError(tuple(_problem_lines(error, document))) from None


def _document(path: Path, *, may_be_missing: bool = False) -> ConfigDocument:
    """What the environment sets counts as a file where there is none."""
    given = read_environment(os.environ)
    is_missing = (may_be_missing or given.variables) and not path.exists()
    document = ConfigDocument({}, (), {}) if is_missing else read_document(path)
    return document.with_environment(given)


def _problem_lines(error: ValidationError, document: ConfigDocument) -> list[str]:
    details = error.errors(include_url=False, include_context=False)
    faulty = document.problems
    return [_problem_line(each, document) for each in details if each["loc"][0] not in faulty]


def _problem_line(detail: ErrorDetails, document: ConfigDocument) -> str:
    key = str(detail["loc"][0])
    label = document.variables.get(key, key) + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"][1:]
    )
    found = {"missing": "missing", "extra_forbidden": "unknown"}.get(detail["type"])
    line = f"{label}: {found or shown(key, detail['input'])}; expected {_expected(detail)}"
    unquoted = detail["type"] == "string_type" and not isinstance(detail["input"], (list, dict))
    return f"{line} (put it in quotes)" if unquoted else line


def _expected(detail: ErrorDetails) -> str:
    """By the key, or by the field of one of its entries."""
    key, *inside = map(str, detail["loc"])
    fields = ENTRY_EXPECTS.get(key, {})
    if detail["type"] == "extra_forbidden":
        return ", ".join(fields)
    return next((fields[part] for part in inside if part in fields), EXPECTS[key])


def shown(key: str, value: object) -> str:
    """A value as a problem line shows it: on one line, not too long, and never a secret."""
    if key in SECRETS:
        return "what is written there is none (not shown here)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reserve_notes(document: ConfigDocument) -> tuple[str, ...]:
    """Older workers shipped "80%" and ignored it; taken at its word it leaves next to nothing."""
    notes: list[str] = []
    for key in ("vram_to_leave_free", "ram_to_leave_free"):
        share = SHARE.fullmatch(str(document.settings.get(key, "")).strip())
        if share and int(share[1]) > _ALL_BUT_A_LITTLE_PERCENT:
            notes.append(
                f"{key}: {share[0]} really stays free here; the worker gets only "
                f"{100 - int(share[1])}%. Set 10%"
            )
    return tuple(notes)

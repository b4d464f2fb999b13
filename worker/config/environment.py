"""Keys of bridgeData.yaml that the environment sets, for containers: they win over the file.

`DREAMER_MAX_POWER=16` is `max_power: 16`, and `DREAMER_NAME` is `dreamer_name`. Lists and numbers
are YAML. `DREAMER_API_KEY_FILE=/run/secrets/key` names a file that holds the value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import SecretStr

from worker.config.keys import EXPECTS, BridgeConfig

PREFIX = "DREAMER_"
FILE_SUFFIX = "_FILE"
NO_KEYS = frozenset({"DREAMER_RUNTIME"})  # what the launcher's scripts read
MOST_BYTES = 1 << 16  # of a file with one value


def variable(key: str) -> str:
    """The name of the variable that sets a key: DREAMER_NAME for `dreamer_name`."""
    return PREFIX + key.removeprefix("dreamer_").upper()


VARIABLES: Mapping[str, str] = {variable(key): key for key in EXPECTS}


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """`variables` has the name of the variable that each key of `settings` comes from.

    `problems`: a line for each key, or variable of no key, that can't be used.
    """

    settings: dict[str, object] = field(default_factory=dict[str, object])
    variables: dict[str, str] = field(default_factory=dict[str, str])
    problems: dict[str, str] = field(default_factory=dict[str, str])


def read_environment(environment: Mapping[str, str]) -> EnvironmentSettings:
    """An empty value counts as a variable that is not set."""
    found = EnvironmentSettings()
    given = {name: text for name, text in environment.items() if name.startswith(PREFIX) and text}
    for name, text in given.items():
        key, is_file = _key_of(name)
        if key is None:
            if name not in NO_KEYS:
                found.problems[name] = _unknown_line(name)
        elif is_file and variable(key) in given:
            found.problems[key] = f"{name}: {variable(key)} is set, too; set one of them"
        else:
            _take(found, key, name, text, is_file=is_file)
    return found


def _take(found: EnvironmentSettings, key: str, name: str, text: str, *, is_file: bool) -> None:
    found.variables[key] = name
    try:
        found.settings[key] = _value(key, _content(Path(text)) if is_file else text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        found.problems[key] = f"{name}: {text if is_file else 'its value'} can't be read: {reason}"
    except yaml.YAMLError:
        found.problems[key] = f"{name}: broken YAML; expected {EXPECTS[key]}"


def _key_of(name: str) -> tuple[str | None, bool]:
    if name in VARIABLES:
        return VARIABLES[name], False
    return VARIABLES.get(name.removesuffix(FILE_SUFFIX)), name.endswith(FILE_SUFFIX)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 10} KiB")
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None


def _value(key: str, text: str) -> object:
    return text if key in _TEXTS else yaml.safe_load(text)


def _unknown_line(name: str) -> str:
    key = name.removeprefix(PREFIX).lower()  # as DREAMER_DREAMER_NAME has it
    near = [variable(key)] if key in EXPECTS else difflib.get_close_matches(name, VARIABLES, n=1)
    advice = f"did you mean {near[0]}?" if near else "docs/configuration.md lists all keys"
    return f"{name[:60]}: sets no key of bridgeData.yaml; {advice}"


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that a key's value may have, without what pydantic is told beside them."""
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif args := get_args(annotation):
        for each in args:
            yield from _kinds(each)
    else:
        yield annotation


# A key of digits alone, or a worker named "on", is no number and no truth value.
_TEXTS = frozenset(
    key
    for key, info in BridgeConfig.model_fields.items()
    if get_origin(info.annotation) is not tuple
    and not {str, SecretStr, Path}.isdisjoint(_kinds(info.annotation))
)

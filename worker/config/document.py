"""A YAML file as a mapping of known keys, or as lines that say what is wrong with it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from yaml.reader import ReaderError

from worker.command_line import LAUNCHER
from worker.config.broken_yaml import mistake_in
from worker.config.environment import EnvironmentSettings
from worker.config.keys import EXPECTS
from worker.config.old_keys import PLACEHOLDERS, RENAMED, RETIRED, UNCHOSEN
from worker.errors import ConfigError

CONFIG_FILE, TEMPLATE_NAME = "bridgeData.yaml", "bridgeData.template.yaml"


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """The keys of a file, sorted out; the values are still unchecked.

    `settings` holds keys of today only, `notes` a line per old key, `problems` a line for each key
    that is unknown, given twice or still the template's. `variables` names the environment's
    variable for each key that it sets.
    """

    settings: dict[str, object]
    notes: tuple[str, ...]
    problems: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])

    def with_environment(self, given: EnvironmentSettings) -> ConfigDocument:
        """What the environment sets replaces what the file says, and what is wrong with it."""
        left = {key: told for key, told in self.problems.items() if key not in given.variables}
        return ConfigDocument(
            self.settings | given.settings,
            (*self.notes, *_replaced_notes(self.settings, given)),
            left | _placeholder_lines(given.settings, given.variables) | given.problems,
            given.variables,
        )


def read_document(path: Path) -> ConfigDocument:
    """Raises ConfigError where there is no mapping to look at: no file, no text, no YAML."""
    text = _read_text(path)
    node = _compose(path, text)
    given = _construct(path, text)
    return _sorted_out(given, _repeated_keys(node))


def document_of(settings: Mapping[str, object]) -> ConfigDocument:
    """As if these keys stood in a file."""
    return _sorted_out(dict(settings), {})


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            (f"{path}: no such file; run {LAUNCHER} setup, which asks and writes it",)
        ) from None
    except OSError as error:
        raise ConfigError((f"{path}: can't be read: {error.strerror}",)) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{path}, line {line}: not UTF-8 text; save it as UTF-8",)) from error


def _compose(path: Path, text: str) -> yaml.MappingNode:
    """The syntax tree: it still knows lines and repeated keys."""
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError((f"{path}, line {line}: not text: {error.reason}",)) from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError((_syntax_line(path, text, error),)) from error
    except RecursionError as error:
        raise ConfigError((f"{path}: lists within lists far too deep",)) from error
    if node is None:
        raise ConfigError(
            (f"{path}: empty; delete it and run {LAUNCHER} setup, or fill in {TEMPLATE_NAME}",)
        )
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError((f'{path}: no keys in it; expected lines such as "max_power: 8"',))
    return node


def _syntax_line(path: Path, text: str, error: yaml.MarkedYAMLError) -> str:
    mistake = mistake_in(text, error)
    if mistake is None:
        return f"{path}: broken YAML: {error.problem}"
    where = f"{path}, line {mistake.line}, column {mistake.column}"
    return f"{where}: broken YAML: {mistake.told}"


def _construct(path: Path, text: str) -> dict[object, object]:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError((_syntax_line(path, text, error),)) from error
    # PyYAML lets these through for scalars such as 2024-13-45 or !!bool perhaps.
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ConfigError((f"{path}: a value that YAML can't read: {error}",)) from error


def _repeated_keys(node: yaml.MappingNode) -> dict[str, list[int]]:
    """Keys that a mapping holds more than once, with their lines; YAML would keep the last."""
    lines: dict[str, list[int]] = defaultdict(list)
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            lines[key.value].append(key.start_mark.line + 1)
    return {key: at for key, at in lines.items() if len(at) > 1}


def _sorted_out(given: Mapping[Any, object], repeated: dict[str, list[int]]) -> ConfigDocument:
    """An empty value counts as a key that was left out, which is how its owner sees it."""
    names = [str(key) for key in given]
    old = {RENAMED[key]: given[key] for key in reversed(names) if key in RENAMED}
    settings = {key: given[key] if key in given else old.get(key) for key in EXPECTS}
    settings = {
        key: value
        for key, value in settings.items()
        if value is not None and value not in UNCHOSEN.get(key, ())
    }
    notes = [_renamed_note(key, given) for key in names if key in RENAMED]
    notes += [f"{key}: {RETIRED[key]}" for key in names if key in RETIRED]
    problems = {key: _repeated_line(key, lines) for key, lines in repeated.items()}
    problems |= {key: _unknown_line(key) for key in names if not _is_known(key)}
    problems |= _placeholder_lines(settings)
    return ConfigDocument(settings, tuple(notes), problems)


def _replaced_notes(settings: Mapping[str, object], given: EnvironmentSettings) -> Iterator[str]:
    for key, name in given.variables.items():
        if key in settings and settings[key] != given.settings.get(key):
            yield f"{key}: {name} is set, and replaces what the file says"


def _is_known(key: str) -> bool:
    return key in EXPECTS or key in RENAMED or key in RETIRED


def _renamed_note(key: str, given: Mapping[Any, object]) -> str:
    if RENAMED[key] in given:
        return f"{key}: ignored: {RENAMED[key]} is set too"
    return f"{key}: replaced by {RENAMED[key]}; its value is used"


def _repeated_line(key: str, lines: list[int]) -> str:
    return f"{key}: given {len(lines)} times, in lines {', '.join(map(str, lines))}; keep one"


def _unknown_line(key: str) -> str:
    known = {name.lower(): name for name in (*EXPECTS, *RENAMED, *RETIRED)}
    near = difflib.get_close_matches(key.lower(), known, n=1)
    advice = f"did you mean {known[near[0]]}?" if near else "docs/configuration.md lists all keys"
    return f"{key[:60]!r}: unknown key; {advice}"


def _placeholder_lines(
    settings: Mapping[str, object], names: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """`names`: what the keys are called where they are set."""
    return {
        key: f"{names.get(key, key)}: still the template's {settings[key]!r};"
        f" expected {EXPECTS[key]}"
        for key, placeholders in PLACEHOLDERS.items()
        if settings.get(key) in placeholders
    }

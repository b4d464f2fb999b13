"""Puts new values into a bridgeData.yaml, whose comments and other keys stay as they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import yaml

from worker.config import load_config
from worker.config_file import read_document
from worker.config_keys import RENAMED
from worker.errors import ConfigError

Value = int | str | Sequence[str]
Edit = tuple[int, int, str]  # from, to, what stands there afterwards


def change_settings(path: Path, changes: Mapping[str, Value]) -> Path:
    """Replace the file, atomically; the path of the copy of what it was.

    Lists can only lose entries. Raises ConfigError, and changes nothing, where the file or what
    would become of it can't be used.
    """
    path = path.resolve()  # a link stays a link
    before = read_document(path).settings
    text = path.read_bytes().decode("utf-8")
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch(0o600)
        shutil.copymode(path, partial)
        partial.write_bytes(edited(text, changes).encode("utf-8"))
        if _settings(partial) != {**before, **_as_read(changes)}:  # by an alias, for example
            raise ConfigError(_by_hand(path, changes))
        load_config(partial)
        backup = _copied(path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return backup


def edited(text: str, changes: Mapping[str, Value]) -> str:
    """The text of a mapping with these values; keys that it lacks come at its end."""
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    nodes = {key.value: value for key, value in root.value}
    edits: list[Edit] = []
    added = dict(changes)
    for name, node in nodes.items():
        key = RENAMED.get(name, name)
        if key in added:
            edits += _edits(text, node, added.pop(key))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text + _added_lines(text, added)


def _edits(text: str, node: yaml.Node, value: Value) -> Iterator[Edit]:
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        yield from _dropped_lines(text, node, value)
    elif start == end:  # a key without a value ends with its colon
        yield start, end, f" {_written(value)}"
    else:
        yield start, end, _written(value)


def _dropped_lines(text: str, node: yaml.SequenceNode, kept: Value) -> Iterator[Edit]:
    """The lines of entries that are not kept; with a comment behind them."""
    for entry in node.value:
        if isinstance(kept, str | int) or entry.value not in kept:
            start = text.rfind("\n", 0, entry.start_mark.index) + 1
            end = text.find("\n", entry.end_mark.index) + 1
            yield start, end or len(text), ""


def _added_lines(text: str, added: Mapping[str, Value]) -> str:
    if not added:
        return ""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = (f"{key}: {_written(value)}{newline}" for key, value in added.items())
    return ("" if text.endswith("\n") else newline) + "".join(lines)


def _written(value: Value) -> str:
    """JSON is YAML, too."""
    return json.dumps(value if isinstance(value, int | str) else list(value), ensure_ascii=False)


def _settings(path: Path) -> Mapping[str, object]:
    """Of a file that we have written; none where it is no YAML any more."""
    try:
        return read_document(path).settings
    except ConfigError:
        return {}


def _as_read(changes: Mapping[str, Value]) -> Mapping[str, object]:
    return {key: v if isinstance(v, int | str) else list(v) for key, v in changes.items()}


def _by_hand(path: Path, changes: Mapping[str, Value]) -> tuple[str, ...]:
    lines = (f"{key}: {_written(value)}" for key, value in changes.items())
    return (f"{path} can't be changed without touching other keys; write there yourself", *lines)


def _copied(path: Path) -> Path:
    """A copy beside the file, with a name that nothing has yet; it holds the api key, too."""
    names = (path.with_name(f"{path.name}.backup-{number}") for number in count(1))
    backup = next(name for name in names if not name.exists())
    backup.touch(0o600, exist_ok=False)
    shutil.copy2(path, backup)
    return backup

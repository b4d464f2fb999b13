"""Puts new values into a bridgeData.yaml, whose comments and other keys stay as they are."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import yaml

from hordelib.files.whole_files import move_over, open_new
from worker.config.config import load_config
from worker.config.document import read_document
from worker.config.old_keys import RENAMED
from worker.errors import ConfigError

Value = int | str | Sequence[str] | None  # None: as if the key were left out
Edit = tuple[int, int, str]  # from, to, what stands there afterwards


def change_settings(path: Path, changes: Mapping[str, Value]) -> Path:
    """Replace the file, atomically; the path of the copy of what it was.

    Raises ConfigError or OSError, and changes nothing, where the file
    or what would become of it can't be used.
    """
    path = path.resolve()  # a link stays a link
    with _changed(path, changes) as partial:
        backup = _copied(path)
        move_over(partial, path)
    return backup


def create_settings(path: Path, template: str, settings: Mapping[str, Value]) -> None:
    """A new file for its owner alone: the template's text with these values.

    Raises FileExistsError, ConfigError or OSError, and leaves nothing behind then.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open_new(partial) as file:
            file.write(edited(template, settings).encode("utf-8"))
        load_config(partial)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        move_over(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def try_change(path: Path, changes: Mapping[str, Value]) -> None:
    """Raises what `change_settings` would raise, and changes nothing."""
    with _changed(path.resolve(), changes):
        pass


@contextmanager
def _changed(path: Path, changes: Mapping[str, Value]) -> Generator[Path]:
    """A file beside it, for as long as it takes, that could stand in its place."""
    before = read_document(path).settings
    text = path.read_bytes().decode("utf-8")
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open_new(partial) as file:
            file.write(edited(text, changes).encode("utf-8"))
        shutil.copymode(path, partial)
        if _settings(partial) != _with(before, changes):
            raise ConfigError((_entangled(path, changes),))
        load_config(partial)
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def edited(text: str, changes: Mapping[str, Value]) -> str:
    """The text of a mapping with these values; keys that it lacks come at its end."""
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    values = _values(root)
    added = {key: value for key, value in changes.items() if key not in values}
    edits: list[Edit] = []
    for key in changes.keys() - added.keys():
        edits += _edits(text, values[key], changes[key])
    last = [_addition(text, root, added)] if added else []
    for start, end, new in (*last, *sorted(edits, reverse=True)):
        text = text[:start] + new + text[end:]
    return text


def _values(root: yaml.MappingNode) -> dict[str, yaml.Node]:
    """By the names that keys have today; of those with an old name, the one that counts."""
    given = {key.value: value for key, value in root.value}
    old = {RENAMED[name]: given[name] for name in reversed(given) if name in RENAMED}
    return old | {name: value for name, value in given.items() if name not in RENAMED}


def _addition(text: str, root: yaml.MappingNode, added: Mapping[str, Value]) -> Edit:
    lines = [f"{key}: {_written(value)}" for key, value in added.items()]
    first_key, last_value = root.value[0][0], root.value[-1][1]
    if root.flow_style:
        end = last_value.end_mark.index
        return end, end, "".join(f", {line}" for line in lines)
    newline = "\r\n" if "\r\n" in text else "\n"
    indent = " " * first_key.start_mark.column
    end = root.end_mark.index  # behind comments, but before a last "..."
    before = "" if text[:end].endswith("\n") else newline
    return end, end, before + "".join(f"{indent}{line}{newline}" for line in lines)


def _edits(text: str, node: yaml.Node, value: Value) -> Iterator[Edit]:
    start, end = node.start_mark.index, _end(text, node)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        yield from _list_edits(text, node, value)
    elif start == end:  # a key without a value ends with its colon
        yield start, end, f" {_written(value)}"
    else:
        yield start, end, _written(value)


def _list_edits(text: str, node: yaml.SequenceNode, value: Value) -> Iterator[Edit]:
    """Entries that go take their lines along, and new ones get lines at the end, also where all
    are new; where neither leads to the new list, it is written anew, on one line."""
    wanted = [] if isinstance(value, str | int | None) else list(value)
    before = [entry.value for entry in node.value]
    kept = [entry for entry in before if entry in wanted]
    first = node.value[0].start_mark
    dash = text[text.rfind("\n", 0, first.index) + 1 : first.index]
    newline = "\r\n" if "\r\n" in text else "\n"
    if wanted and not kept and not dash.strip(" -"):
        lines = newline.join(f"{dash}{_written(entry)}" for entry in wanted)
        yield node.start_mark.index, _end(text, node), lines.lstrip(" ")
        return
    if not kept or wanted[: len(kept)] != kept:
        yield node.start_mark.index, _end(text, node), f" {_written(value)}"
        return
    yield from _dropped_lines(text, node, value)
    if added := wanted[len(kept) :]:
        last = _end(text, node.value[-1])
        end = text.find("\n", last)
        lines = newline.join(f"{dash}{_written(entry)}" for entry in added)
        if end < 0:
            yield len(text), len(text), f"{newline}{lines}"
        else:
            yield end + 1, end + 1, f"{lines}{newline}"


def _dropped_lines(text: str, node: yaml.SequenceNode, kept: Value) -> Iterator[Edit]:
    """The lines of entries that are not kept; with a comment behind them."""
    for entry in node.value:
        if isinstance(kept, str | int | None) or entry.value not in kept:
            start = text.rfind("\n", 0, entry.start_mark.index) + 1
            end = text.find("\n", _end(text, entry)) + 1
            yield start, end or len(text), ""


def _end(text: str, node: yaml.Node) -> int:
    """Of what is written: PyYAML counts the line's end behind a text of several lines, too."""
    start = node.start_mark.index
    return start + len(text[start : node.end_mark.index].rstrip())


def _written(value: Value) -> str:
    """JSON is YAML, too."""
    return json.dumps(_as_read(value), ensure_ascii=False)


def _settings(path: Path) -> Mapping[str, object]:
    """Of a file that we have written; none where it is no YAML any more."""
    try:
        return read_document(path).settings
    except ConfigError:
        return {}


def _with(before: Mapping[str, object], changes: Mapping[str, Value]) -> Mapping[str, object]:
    """What the file has to say after the changes."""
    after = {**before, **{key: _as_read(value) for key, value in changes.items()}}
    return {key: value for key, value in after.items() if value is not None}


def _as_read(value: Value) -> object:
    return value if isinstance(value, int | str | None) else list(value)


def _entangled(path: Path, changes: Mapping[str, Value]) -> str:
    """Such as by an alias, which stands for another key's value."""
    told = f"{path}: {', '.join(changes)} can't be changed without touching other keys"
    return f"{told}; write the values out there, without & and *"


def _copied(path: Path) -> Path:
    """A copy beside the file, with a name that nothing has yet; it holds the api key, too."""
    names = (path.with_name(f"{path.name}.backup-{number}") for number in count(1))
    backup = next(name for name in names if not name.exists())
    backup.touch(0o600, exist_ok=False)
    shutil.copy2(path, backup)
    return backup

"""Takes out of texts what must not leave this machine: secrets, names, addresses and prompts."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from worker.config.environment import read_environment

_SECRET_KEY = re.compile(r"key|token|password|passwd|secret|name|user|notify|url|list", re.I)
_SHORTEST = 3  # characters of a text that is looked for: shorter ones are in every other word
_OUR_LINE = re.compile(r"(\d{4}-\d\d-\d\d[ T]|\{\"time\": \"|\s*(File \"|Traceback ))")
_RULES = (
    # A prompt is told nowhere on purpose; what follows the word goes all the same.
    (re.compile(r"(prompt\w*\"?\s*[:=]).*", re.I), r"\1 (left out)"),
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.I), "(address)"),
    (re.compile(r"\b(serving for ).*( at )", re.I), r"\1(account)\2"),
    (re.compile(r"[^\s\"']+#\d+"), "(account)"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "(address)"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b"), "(address)"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?![\w:])", re.I), "(address)"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.I), "(id)"),
    (re.compile(r"\b(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{20,}\b", re.I), "(token)"),
)
_QUOTED = re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Scrubber:
    """`words` are replaced wherever they stand, the longest first; addresses go by their form."""

    words: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, given: Mapping[object, object], home: Path) -> Scrubber:
        """For the configuration `given` in the folder `home`, and for who is logged in here."""
        settings = (*given.items(), *read_environment(os.environ).settings.items())
        secret = [
            text
            for key, value in settings
            if _SECRET_KEY.search(str(key))
            for text in _texts(value)
        ]
        found = {text: "(left out)" for text in secret if len(text) >= _SHORTEST}
        found |= {str(home): "(home)", str(Path.home()): "(owner's folder)"}
        found |= {name: "(name)" for name in _own_names() if len(name) >= _SHORTEST}
        found = {text: told for text, told in found.items() if text.strip("/")}
        return cls(tuple(sorted(found.items(), key=lambda pair: -len(pair[0]))))

    def text(self, text: str) -> str:
        for word, told in self.words:
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", told, text, flags=re.I)
        for form, told in _RULES:
            text = form.sub(told, text)
        return text

    def log(self, text: str) -> Iterator[str]:
        """The lines of a log that begin as the worker's own do; what is quoted in them is cut.

        Other programs' lines may hold anything, and are only counted.
        """
        others = 0
        for line in text.splitlines():
            if not _OUR_LINE.match(line):
                others += 1
                continue
            if others:
                yield f"({others} other lines)"
                others = 0
            yield self._json_line(line) if line.startswith("{") else self._line(line)
        if others:
            yield f"({others} other lines)"

    def _line(self, line: str) -> str:
        return self.text(line if line.startswith(" ") else _QUOTED.sub("(quoted)", line))

    def _json_line(self, line: str) -> str:
        try:
            told: object = json.loads(line)
        except ValueError:
            return "(a damaged line)"
        fields = cast(dict[str, object], told) if isinstance(told, dict) else {}
        kept = {name: self._line(str(fields[name])) for name in _TOLD_FIELDS if name in fields}
        return json.dumps(kept, ensure_ascii=False)


_TOLD_FIELDS = ("time", "level", "logger", "message")


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, Mapping):
        held = cast(Mapping[object, object], value)
        return [text for each in held.values() for text in _texts(each)]
    if isinstance(value, list | tuple):
        items = cast(list[object], value)
        return [text for each in items for text in _texts(each)]
    return [str(value)] if isinstance(value, str | int) and not isinstance(value, bool) else []


def _own_names() -> Iterator[str]:
    yield socket.gethostname()
    try:
        yield getpass.getuser()
    except (OSError, KeyError):  # as for a user id that the system has no name for
        return

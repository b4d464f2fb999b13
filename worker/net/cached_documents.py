"""JSON documents of the horde's sites: asked for again only when they changed, and kept.

The last good copy of each lies on disk and serves while the sites are away, or send nonsense.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from hordelib.files.json_file import JsonFile
from worker.clock import elapsed_seconds
from worker.errors import DocumentMissing
from worker.net.call import Http
from worker.net.messages import AnswerTooLong, HttpAnswer, HttpFailed, HttpRequest
from worker.net.untrusted import reason_of

CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 10.0
WHOLE_SECONDS = 60.0  # for an address, with all that it leads to
MOST_BYTES = 16 << 20
MOST_REDIRECTS = 5

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Source(Generic[Read]):
    """A document: where it is, and what it means.

    `parse` raises ValueError for nonsense. A copy of less than `fresh_seconds` is not asked for.
    `headers` are sent wherever the address leads, so they hold nothing secret.
    """

    name: str
    urls: tuple[str, ...]
    parse: Callable[[str], Read]
    fresh_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Had(Generic[Read]):
    """What a document says. `note` tells the owner where an old copy had to do."""

    value: Read
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Copy:
    url: str
    text: str
    etag: str = ""
    checked_at: float = 0.0  # seconds since 1970


_COPIES = TypeAdapter(_Copy)


class Documents:
    """Reads documents, and keeps a copy of each in `folder`. Any thread may use it.

    No address takes longer than `whole_seconds`, whatever it answers.
    """

    def __init__(
        self,
        folder: Path,
        user_agent: str,
        *,
        now: Callable[[], float] = time.time,
        whole_seconds: float = WHOLE_SECONDS,
    ):
        self._folder = folder
        self._http = Http(user_agent, trust_env=True)
        self._now = now
        self._whole_seconds = whole_seconds
        self._lock = threading.Lock()

    def read(self, source: Source[Read]) -> Had[Read]:
        """The document from the first address that has it, else the last good copy.

        Raises DocumentMissing where there is neither.
        """
        with self._lock:
            kept = self._kept(source)
            # One of the future is of a clock that was set back.
            if kept is not None and 0 <= self._now() - kept.checked_at < source.fresh_seconds:
                return Had(source.parse(kept.text))
            return self._asked(source, kept)

    def _asked(self, source: Source[Read], kept: _Copy | None) -> Had[Read]:
        reasons: list[str] = []
        for url in source.urls:
            try:
                fresh = self._ask(url, kept, source.headers)
                value = source.parse(fresh.text)
            except (HttpFailed, ValueError) as error:
                reasons.append(f"{urlsplit(url).hostname}: {reason_of(error)}")
                continue
            self._keep(source, fresh)
            return Had(value)
        problem = f"{source.name}: " + "; ".join(reasons or ["there is no address to ask"])
        if kept is None:
            raise DocumentMissing(problem)
        age_hours = (self._now() - kept.checked_at) / 3600
        return Had(source.parse(kept.text), f"{problem}; the copy of {age_hours:.0f} h ago is used")

    def _ask(self, url: str, kept: _Copy | None, headers: Mapping[str, str]) -> _Copy:
        """A new copy, or the kept one where the site says that it is still right."""
        known = kept if kept is not None and kept.url == url else None
        if known is not None and known.etag:
            headers = {**headers, "If-None-Match": known.etag}
        until = elapsed_seconds() + self._whole_seconds

        def request_to(target: str) -> HttpRequest:
            _raise_if_unsafe(target, url)
            return HttpRequest(
                url=target,
                headers=headers,
                until=until,
                connect_seconds=CONNECT_SECONDS,
                silence_seconds=SILENCE_SECONDS,
            )

        with self._http.follow(url, request_to, MOST_REDIRECTS) as (_, answer):
            return self._copy(url, answer, known)

    def _copy(self, url: str, answer: HttpAnswer, known: _Copy | None) -> _Copy:
        if answer.status == 304 and known is not None:
            return replace(known, checked_at=self._now())
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        return _Copy(url, _text(answer), answer.headers.get("ETag", ""), self._now())

    def _kept(self, source: Source[Read]) -> _Copy | None:
        """The copy on disk; one that is damaged, or no longer understood, is none."""
        copy = self._file(source).read()
        try:
            if copy is not None:
                source.parse(copy.text)
        except ValueError:
            return None
        return copy

    def _keep(self, source: Source[Read], copy: _Copy) -> None:
        with suppress(OSError):  # then it is asked for again the next time
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(source).write(copy)

    def _file(self, source: Source[Read]) -> JsonFile[_Copy]:
        return JsonFile(self._folder / f"{source.name}.json", _COPIES)


def _text(answer: HttpAnswer) -> str:
    try:
        return answer.read(MOST_BYTES).decode("utf-8")
    except AnswerTooLong as error:
        raise ValueError(f"more than {MOST_BYTES >> 20} MiB") from error


def _raise_if_unsafe(reached: str, asked: str) -> None:
    """A redirect may not leave what was encrypted."""
    if urlsplit(asked).scheme == "https" and urlsplit(reached).scheme != "https":
        raise ValueError("leads to an address without encryption")

"""JSON documents of the horde's sites: asked for again only when they changed, and kept.

The last good copy of each lies on disk and serves while the sites are away, or send nonsense.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import TypeAdapter, ValidationError

from hordelib.whole_files import write_whole
from worker.errors import DocumentMissing
from worker.network_reasons import network_reason

CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 10.0
WHOLE_SECONDS = 60.0
MOST_BYTES = 32 << 20
_CHUNK_BYTES = 64 * 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Source(Generic[Read]):
    """A document: where it is, and what it means.

    `parse` raises ValueError for nonsense. A copy of less than `fresh_seconds` is not asked for.
    """

    name: str
    urls: tuple[str, ...]
    parse: Callable[[str], Read]
    fresh_seconds: float


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
    """Reads documents, and keeps a copy of each in `folder`. Any thread may use it."""

    def __init__(self, folder: Path, user_agent: str, *, now: Callable[[], float] = time.time):
        self._folder = folder
        self._user_agent = user_agent
        self._now = now
        self._lock = threading.Lock()

    def read(self, source: Source[Read]) -> Had[Read]:
        """The document from the first address that has it, else the last good copy.

        Raises DocumentMissing where there is neither.
        """
        with self._lock:
            kept = self._kept(source)
            if kept is not None and self._now() - kept.checked_at < source.fresh_seconds:
                return Had(source.parse(kept.text))
            return self._asked(source, kept)

    def _asked(self, source: Source[Read], kept: _Copy | None) -> Had[Read]:
        reasons: list[str] = []
        for url in source.urls:
            try:
                fresh = self._ask(url, kept)
                value = source.parse(fresh.text)
            except (requests.RequestException, OSError, ValueError) as error:
                reasons.append(f"{urlsplit(url).hostname}: {_reason(error)}")
                continue
            self._keep(source, fresh)
            return Had(value)
        problem = f"{source.name}: " + "; ".join(reasons or ["there is no address to ask"])
        if kept is None:
            raise DocumentMissing(problem)
        age_hours = (self._now() - kept.checked_at) / 3600
        return Had(source.parse(kept.text), f"{problem}; the copy of {age_hours:.0f} h ago is used")

    def _ask(self, url: str, kept: _Copy | None) -> _Copy:
        """A new copy, or the kept one where the site says that it is still right."""
        known = kept if kept is not None and kept.url == url else None
        headers = {"User-Agent": self._user_agent}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        with requests.Session() as session:
            session.trust_env = urlsplit(url).hostname not in _LOOPBACK  # no proxy reaches us
            with session.get(
                url, headers=headers, timeout=(CONNECT_SECONDS, SILENCE_SECONDS), stream=True
            ) as answer:
                _raise_if_unsafe(answer.url, url)
                if answer.status_code == 304 and known is not None:
                    return replace(known, checked_at=self._now())
                if answer.status_code != 200:
                    raise ValueError(f"HTTP {answer.status_code}")
                etag = answer.headers.get("ETag", "")
                return _Copy(url, _text(answer), etag, self._now())

    def _kept(self, source: Source[Read]) -> _Copy | None:
        """The copy on disk; one that is damaged, or no longer understood, is none."""
        try:
            copy = _COPIES.validate_json(self._path(source).read_bytes())
            source.parse(copy.text)
        except (OSError, ValidationError, ValueError):
            return None
        return copy

    def _keep(self, source: Source[Read], copy: _Copy) -> None:
        with suppress(OSError):  # then it is asked for again the next time
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(source), _COPIES.dump_json(copy))

    def _path(self, source: Source[Read]) -> Path:
        return self._folder / f"{source.name}.json"


def _text(answer: requests.Response) -> str:
    body = bytearray()
    end = time.monotonic() + WHOLE_SECONDS
    for chunk in answer.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > end:
            raise ValueError("too slow")
    return body.decode("utf-8")


def _raise_if_unsafe(reached: str, asked: str) -> None:
    """A redirect may not leave what was encrypted."""
    if urlsplit(asked).scheme == "https" and urlsplit(reached).scheme != "https":
        raise ValueError("leads to an address without encryption")


def _reason(error: Exception) -> str:
    if isinstance(error, requests.exceptions.RequestException):
        return network_reason(error)
    return " ".join(str(error).split())[:200]

"""GET requests to sites that serve files: where they may lead, and what a refusal means.

Every call ends by its deadline (elapsed_seconds()).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

from hordelib.errors import DownloadFailed, DownloadRefused
from worker.backoff import MOST_SECONDS, retry_after_seconds
from worker.clock import elapsed_seconds
from worker.net.addresses import as_asked, is_this_machine
from worker.net.call import Http
from worker.net.messages import AnswerTooLong, BadRedirect, HttpAnswer, HttpFailed, HttpRequest
from worker.net.untrusted import one_line

CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 5.0
_MOST_REDIRECTS = 5
_HOUR, _DAY = 3600.0, 86400.0

# What a status says for good: the reason, and for how long there is no sense in asking again.
_LAST_WORDS: Mapping[int, tuple[str, float]] = MappingProxyType(
    {
        400: ("it does not understand the request", _HOUR),
        401: ("an account is needed that may have it; see civitai_api_token", _DAY),
        402: ("it must be paid for", _DAY),
        403: ("it is forbidden", _DAY),
        404: ("there is none", 7 * _DAY),
        410: ("it is gone", 7 * _DAY),
        451: ("it is unavailable for legal reasons", 7 * _DAY),
    }
)


class TryLater(DownloadFailed):
    """The same request may succeed after `pause_seconds`; None where the server named no time."""

    def __init__(self, message: str, pause_seconds: float | None = None):
        super().__init__(message)
        self.pause_seconds = pause_seconds


@dataclass(frozen=True, slots=True)
class Answer(HttpAnswer):
    """An answer whose body has not been read. `site` names it in messages."""

    site: str


class Web:
    """Asks sites for things, each with the token that is its own. Any thread may use it.

    `tokens`: bearer token by origin ("https://host"); no other site ever sees it, and no message or
    repr holds it. Only https is spoken, so that nobody in the owner's own network has the
    certificate of a name that leads there; but for a site on this machine. `pause_seconds` lie
    between two tries of `read`, twice as many before the last one.
    """

    def __init__(
        self,
        user_agent: str,
        tokens: Mapping[str, str] = MappingProxyType({}),
        *,
        pause_seconds: float = 1.0,
    ):
        self._http = Http(user_agent, trust_env=True)
        self._pauses = (pause_seconds, 2 * pause_seconds)
        self._tokens = {_origin(site): token for site, token in tokens.items() if token}

    @property
    def has_token(self) -> bool:
        return bool(self._tokens)

    @contextmanager
    def get(self, url: str, deadline: float, *, start_byte: int = 0) -> Generator[Answer]:
        """The answer to a GET with status 200, 206 or 416.

        Raises DownloadRefused for a last word, TryLater for anything that may pass, DownloadFailed
        for a redirect to where we do not go.
        """
        start = {"Range": f"bytes={start_byte}-"} if start_byte else {}
        with self._followed(_readable(url), start, deadline) as (reached, response):
            yield _answer(response, _site(reached))

    def read(self, url: str, deadline: float, most_bytes: int) -> bytes:
        """A small body as a whole. Raises as `get` does after three tries, or where it is large."""
        for pause in self._pauses:
            try:
                return self._read(url, deadline, most_bytes)
            except TryLater as error:
                wait_until_next_try(error, pause, deadline)
        return self._read(url, deadline, most_bytes)

    def _read(self, url: str, deadline: float, most_bytes: int) -> bytes:
        with self.get(url, deadline) as answer:
            try:
                return answer.read(most_bytes)
            except AnswerTooLong as error:
                told = f"{answer.site}: an answer of more than {most_bytes} bytes"
                raise DownloadFailed(told) from error

    @contextmanager
    def _followed(
        self, url: str, headers: Mapping[str, str], deadline: float
    ) -> Generator[tuple[str, HttpAnswer]]:
        asked = url  # of the addresses on the way, the latest

        def request_to(target: str) -> HttpRequest:
            nonlocal asked
            if target != url:
                _raise_if_login(target, _site(url))
            _raise_if_unsafe(target, first=url)
            if elapsed_seconds() >= deadline:
                raise TryLater(f"{_site(target)}: no time left")
            asked = target
            return HttpRequest(
                url=target,
                headers={**headers, **self._headers(target)},
                until=deadline,
                connect_seconds=CONNECT_SECONDS,
                silence_seconds=SILENCE_SECONDS,
            )

        try:
            with self._http.follow(url, request_to, _MOST_REDIRECTS) as reached:
                yield reached
        except HttpFailed as error:
            raise TryLater(f"{_site(asked)}: {error}") from error
        except BadRedirect as error:
            raise DownloadFailed(f"{_site(asked)}: {error}") from error

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        token = self._tokens.get(_origin(url))
        return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def wait_until_next_try(error: TryLater, pause_seconds: float, deadline: float) -> None:
    """Sleep as long as the server asked for, or `pause_seconds`; raises where that is too long.

    Who asks for more than MOST_SECONDS is not waited for longer.
    """
    pause = max(pause_seconds, min(error.pause_seconds or 0.0, MOST_SECONDS))
    if elapsed_seconds() + pause >= deadline:
        raise error
    time.sleep(pause)


def _answer(response: HttpAnswer, site: str) -> Answer:
    """Raises for every status that brings no body worth reading."""
    status = response.status
    if status in _LAST_WORDS:
        reason, valid_seconds = _LAST_WORDS[status]
        raise DownloadRefused(f"{site}: {reason} (HTTP {status})", valid_seconds)
    if status not in (200, 206, 416):
        raise TryLater(f"{site}: HTTP {status}", retry_after_seconds(response.headers))
    return Answer(status, response.headers, response.chunks, site)


def _readable(url: str) -> str:
    try:
        return as_asked(url)
    except ValueError as error:
        raise DownloadFailed(f"{_site(url)}: leads to an address that can't be read") from error


def _raise_if_unsafe(url: str, first: str) -> None:
    """Everything over https; a site on this machine may stay on this machine without."""
    scheme = urlsplit(url).scheme
    local = is_this_machine(url) and is_this_machine(first) and scheme == "http"
    if not local and (scheme != "https" or is_this_machine(url)):
        raise DownloadFailed(
            f"{_site(first)}: leads to {one_line(_origin(url), 80)}, which is not safe"
        )


def _raise_if_login(url: str, site: str) -> None:
    if urlsplit(url).path.rstrip("/").endswith("/login"):
        reason, valid_seconds = _LAST_WORDS[401]
        raise DownloadRefused(f"{site}: {reason} (redirected to its login)", valid_seconds)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def _site(url: str) -> str:
    """The host alone: what follows it may be a password."""
    return one_line(urlsplit(url).hostname or "nowhere", 80)

"""The horde's HTTP interface, and the only module of the worker that knows HTTP.

Each call is one request: the caller decides about another try. What a call raises besides its
own errors: HordeUnreachable, whenever there is no answer to make sense of.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import requests
import urllib3
from pydantic import TypeAdapter, ValidationError
from requests.auth import AuthBase

from worker import refusals
from worker.errors import HordeRefused, HordeUnreachable, UnusableJob, UploadRefused
from worker.network_reasons import network_reason
from worker.wire import (
    Account,
    EmptyPop,
    FullPop,
    NothingToDo,
    Offer,
    PopIds,
    Popped,
    Refused,
    ServedModel,
    Submission,
    Submitted,
    WorkerRecord,
)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CHUNK_BYTES = 64 * 1024
_LONGEST_REPLY_BYTES = 64 * 1024 * 1024  # room for a job whose source images come as base64

Read = TypeVar("Read")
_ANYTHING: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_SERVED_MODELS = TypeAdapter(tuple[ServedModel, ...])


class _NoNetrc(AuthBase):
    """Keeps requests from adding what it finds for the host in the owner's .netrc."""

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        return r


class _Sessions:
    """One requests.Session per thread, because a session is not promised to be thread-safe."""

    def __init__(self, client_agent: str, *, trust_env: bool):
        self._client_agent = client_agent
        self._trust_env = trust_env
        self._mine = threading.local()
        self._all: list[requests.Session] = []
        self._lock = threading.Lock()

    def mine(self) -> requests.Session:
        session: requests.Session | None = getattr(self._mine, "session", None)
        if session is None:
            session = self._mine.session = self._opened()
        return session

    def _opened(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = self._trust_env
        session.auth = _NoNetrc()
        session.headers["User-Agent"] = self._client_agent
        with self._lock:
            self._all.append(session)
        return session

    def close(self) -> None:
        with self._lock:
            for session in self._all:
                session.close()
            self._all.clear()


class HordeClient:
    """Calls to one horde with one account's key. Any thread may use it.

    `timeout`: seconds to connect, and seconds of silence while reading; a whole answer may
    take the sum of both. The key goes to `url` alone, and no redirect is followed. Raises
    ValueError for a key that no HTTP header can hold.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: tuple[float, float] = (5, 30),
        client_agent: str,
    ):
        if not (api_key.isascii() and api_key.isprintable() and api_key == api_key.strip()):
            raise ValueError("the api key holds characters that no key has")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._client_agent = client_agent
        self._api_key = api_key
        # A proxy of the owner's environment can't reach a horde on this machine.
        on_this_machine = urlsplit(url).hostname in _LOOPBACK
        self._sessions = _Sessions(client_agent, trust_env=not on_this_machine)

    def __repr__(self) -> str:
        return f"HordeClient({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection. No call may be under way or follow."""
        self._sessions.close()

    def pop(self, offer: Offer) -> Popped:
        """Ask for a job.

        Raises NotAllowed, HordeOnHold, HordeRefused, and UnusableJob for ids to be faulted.
        """
        call = "POST generate/pop"
        popped_at = time.monotonic()
        answer = self._call(call, refusals.POP, json=offer.body())
        ids = _read(call, TypeAdapter(PopIds), answer).given
        if not ids:
            empty = _read(call, TypeAdapter(EmptyPop), answer)
            return NothingToDo(skipped=empty.skipped, messages=empty.messages)
        try:
            return FullPop.model_validate_json(answer).job(ids, popped_at)
        except ValueError as error:
            raise UnusableJob(ids, f"{call}: {_one_line(error)}") from error

    def submit(self, result: Submission) -> float:
        """Hand in one job's outcome; the kudos for it (0.0 for a fault).

        Raises HordeRefused, whose `fate` says what became of the job. A server error can also
        mean that the api key is wrong.
        """
        call = "POST generate/submit"
        answer = self._call(call, refusals.SUBMIT, json=result.body())
        return _read(call, TypeAdapter(Submitted), answer).reward

    def upload(self, url: str, image: bytes, content_type: str = "image/webp") -> None:
        """Put a picture where the job said, without the api key.

        Raises UploadRefused when this address will never take it: it lives for 1800 s.
        """
        # A file is sent piece by piece: the connect time-out then bounds a piece, not the picture.
        call = f"PUT {urlsplit(url).hostname}"
        status, headers, answer = self._send(
            call, "PUT", url, data=io.BytesIO(image), headers={"Content-Type": content_type}
        )
        _raise_if_unreachable(call, status, headers, answer)
        if status >= 400:
            raise UploadRefused(status, _excerpt(answer))

    def heartbeat(self) -> None:
        """Returns when the horde is there and answers as a horde does."""
        call = "GET status/heartbeat"
        _read(call, _ANYTHING, self._call(call, {}, keyed=False))

    def whoami(self) -> Account:
        """The account of the api key. Raises NotAllowed for a key that nobody has."""
        call = "GET find_user"
        return _read(call, TypeAdapter(Account), self._call(call, refusals.ACCOUNT))

    def worker_by_name(self, name: str) -> WorkerRecord | None:
        """The worker of this name, whoever owns it; None where nobody has the name.

        A name with a slash can't be asked for, the horde's addresses have no room for it: None.
        """
        if "/" in name:
            return None
        call = f"GET workers/name/{quote(name, safe='')}"
        try:
            answer = self._call(call, refusals.ACCOUNT)
        except HordeRefused as error:
            if error.rc == "WorkerNotFound":
                return None
            raise
        return _read(call, TypeAdapter(WorkerRecord), answer)

    def model_names(self) -> frozenset[str]:
        """Image models that some worker of this horde serves now: not all that it knows."""
        call = "GET status/models?type=image"
        served = _read(call, _SERVED_MODELS, self._call(call, {}, keyed=False))
        return frozenset(model.name for model in served)

    def _call(
        self,
        call: str,
        rows: Mapping[str, refusals.Row],
        *,
        json: dict[str, Any] | None = None,
        keyed: bool = True,
    ) -> bytes:
        """The body of a 200 answer of the horde's API."""
        method, path = call.split(" ", 1)
        headers = {"Client-Agent": self._client_agent}
        if keyed:
            headers["apikey"] = self._api_key
        url = f"{self.url}/api/v2/{path}"
        status, reply_headers, answer = self._send(call, method, url, json=json, headers=headers)
        # The horde writes a key that it does not know into its answer.
        answer = answer.replace(self._api_key.encode(), b"<api_key>") if status >= 400 else answer
        _raise_if_unreachable(call, status, reply_headers, answer)
        if status >= 400:
            refused = _read(call, TypeAdapter(Refused), answer)
            rc = refused.rc or (refusals.INVALID_BODY if status == 400 else f"HTTP{status}")
            raise refusals.refusal(rows, rc, status, refused.text())
        return answer

    def _send(
        self, call: str, method: str, url: str, **content: Any
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            with self._sessions.mine().request(
                method,
                url,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
                **content,
            ) as response:
                return (
                    response.status_code,
                    response.headers,
                    _body(call, response, sum(self._timeout)),
                )
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise HordeUnreachable(f"{call}: {network_reason(error)}") from error


def _body(call: str, response: requests.Response, seconds: float) -> bytes:
    """The whole body within `seconds`: a socket's own time-out starts anew at each byte."""
    until = time.monotonic() + seconds
    raw: urllib3.HTTPResponse = response.raw
    body = bytearray()
    while chunk := raw.read1(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if time.monotonic() > until:
            raise HordeUnreachable(f"{call}: the answer was still dripping in at its time-out")
        if len(body) > _LONGEST_REPLY_BYTES:
            raise HordeUnreachable(f"{call}: the answer is longer than any of the horde's")
    return bytes(body)


def _raise_if_unreachable(
    call: str, status: int, headers: Mapping[str, str], answer: bytes
) -> None:
    """A redirect, a rate limit or a server error: nothing of it speaks about our request."""
    if 300 <= status < 400:
        where = headers.get("Location", "nowhere")
        raise HordeUnreachable(f"{call}: redirected to {where[:120]}; check horde_url")
    if status in (408, 429) or status >= 500:
        wait = headers.get("Retry-After", "")
        raise HordeUnreachable(
            f"{call}: HTTP {status}: {_excerpt(answer)}", float(wait) if wait.isdecimal() else None
        )


def _read(call: str, shape: TypeAdapter[Read], answer: bytes) -> Read:
    """An answer as a type. Raises HordeUnreachable with what came instead."""
    try:
        return shape.validate_json(answer)
    except ValidationError as error:
        message = f"{call}: not an answer of a horde ({_one_line(error)}): {_excerpt(answer)}"
        raise HordeUnreachable(message) from error


def _excerpt(answer: bytes) -> str:
    """The beginning of an answer, fit for a log line."""
    return repr(answer[:120].decode("utf-8", "replace")) if answer else "an empty answer"


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return " ".join(str(error).split())[:300]

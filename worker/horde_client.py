"""The horde's HTTP interface, and the only module of the worker that knows HTTP.

Each call is one request: the caller decides about another try. What a call raises besides its
own errors: HordeUnreachable, whenever there is no answer to make sense of.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, LocationValueError
from urllib3.util import parse_url

from worker import refusals
from worker.addresses import Neighbourhood, NoBusiness, is_this_machine, written_out
from worker.backoff import retry_after_seconds
from worker.errors import HordeError, HordeRefused, HordeUnreachable, UnusableJob
from worker.http_call import HttpCall, HttpSession
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
    printable,
)

_TOO_SLOW = "too slow: it did not end within its time"
_CHUNK_BYTES = 64 * 1024
_LONGEST_REPLY_BYTES = 64 * 1024 * 1024  # room for a job whose source images come as base64

Read = TypeVar("Read")
_ANYTHING: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_POP_IDS, _EMPTY_POP = TypeAdapter(PopIds), TypeAdapter(EmptyPop)
_SUBMITTED, _REFUSED = TypeAdapter(Submitted), TypeAdapter(Refused)
_ACCOUNT, _WORKER = TypeAdapter(Account), TypeAdapter(WorkerRecord)
_SERVED_MODELS = TypeAdapter(tuple[ServedModel, ...])


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Sessions:
    """One HttpSession per thread."""

    def __init__(self, client_agent: str, *, trust_env: bool):
        self._client_agent = client_agent
        self._trust_env = trust_env
        self._mine = threading.local()
        self._all: list[HttpSession] = []
        self._lock = threading.Lock()

    def mine(self) -> HttpSession:
        session: HttpSession | None = getattr(self._mine, "session", None)
        if session is None:
            session = self._mine.session = self._opened()
        return session

    def _opened(self) -> HttpSession:
        session = HttpSession(self._client_agent, trust_env=self._trust_env)
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

    `timeout`: seconds to connect, and seconds of silence while reading. A whole call takes at most
    the sum of both, whatever the other side does, and an upload as much more as its picture takes
    at `upload_bytes_per_second`. The key goes to `url` alone, and no redirect is followed. Raises
    ValueError for a key that no HTTP header can hold.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: tuple[float, float] = (5, 30),
        upload_bytes_per_second: float = 16 * 1024,
        client_agent: str,
    ):
        if not (api_key.isascii() and api_key.isprintable() and api_key == api_key.strip()):
            raise ValueError("the api key holds characters that no key has")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._upload_bytes_per_second = upload_bytes_per_second
        self._client_agent = client_agent
        self._api_key = api_key
        # A proxy of the owner's environment can't reach a horde on this machine.
        self._sessions = _Sessions(client_agent, trust_env=not is_this_machine(url))
        self._neighbourhood = Neighbourhood(url)

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
        answer = self._call(call, refusals.POP, content=offer.body())
        ids = self._read(call, _POP_IDS, answer).given
        if not ids:
            empty = self._read(call, _EMPTY_POP, answer)
            return NothingToDo(skipped=empty.skipped, messages=empty.messages)
        try:
            return FullPop.model_validate_json(answer).job(ids, popped_at)
        except ValueError as error:
            raise UnusableJob(ids, f"{call}: {_one_line(error)}") from error

    def submit(self, result: Submission) -> float:
        """Hand in one job's outcome; the kudos for it (0.0 for a fault).

        Raises HordeRefused, whose `fate` says what became of the job.
        """
        call = "POST generate/submit"
        answer = self._call(call, refusals.SUBMIT, content=result.body())
        return self._read(call, _SUBMITTED, answer).reward

    def upload(self, url: str, image: bytes, content_type: str = "image/webp") -> None:
        """Put a picture where the job said, without the api key.

        Raises UploadRefused when this address will never take it: it lives for 1800 s, and may be
        none where this horde has any business.
        """
        host = _upload_host(url)
        call = f"PUT {host}"
        seconds = sum(self._timeout) + len(image) / self._upload_bytes_per_second
        try:
            if found := written_out(host):  # a proxy of the owner's might go there
                self._neighbourhood.permitted(host, found)
            reply = self._send(
                call,
                "PUT",
                url,
                HttpCall(time.monotonic() + seconds, self._neighbourhood.permitted),
                # A file is sent piece by piece: the connect time-out then bounds a piece of it.
                body=io.BytesIO(image),
                headers={"Content-Type": content_type, "Content-Length": str(len(image))},
            )
        except NoBusiness as error:
            raise refusals.refusal(refusals.UPLOAD, refusals.NOWHERE, 0, str(error)) from error
        if reply.status >= 300:
            text = reply.body.decode("utf-8", "replace")
            raise _refusal_by_status(call, refusals.UPLOAD, reply.status, reply.headers, text)

    def heartbeat(self) -> None:
        """Returns when the horde is there and answers as a horde does."""
        call = "GET status/heartbeat"
        self._read(call, _ANYTHING, self._call(call, refusals.PUBLIC, keyed=False))

    def whoami(self) -> Account:
        """The account of the api key. Raises NotAllowed for a key that nobody has."""
        call = "GET find_user"
        return self._read(call, _ACCOUNT, self._call(call, refusals.ACCOUNT))

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
        return self._read(call, _WORKER, answer)

    def model_names(self) -> frozenset[str]:
        """Image models that some worker of this horde serves now: not all that it knows."""
        call = "GET status/models?type=image"
        served = self._read(call, _SERVED_MODELS, self._call(call, refusals.PUBLIC, keyed=False))
        return frozenset(model.name for model in served)

    def _call(
        self,
        call: str,
        rows: refusals.Rows,
        *,
        content: dict[str, Any] | None = None,
        keyed: bool = True,
    ) -> bytes:
        """The body of a 200 answer of the horde's API."""
        method, path = call.split(" ", 1)
        headers = {"Client-Agent": self._client_agent}
        if keyed:
            headers["apikey"] = self._api_key
        body = None
        if content is not None:
            headers["Content-Type"], body = "application/json", json.dumps(content).encode()
        within = HttpCall(time.monotonic() + sum(self._timeout))
        url = f"{self.url}/api/v2/{path}"
        reply = self._send(call, method, url, within, body=body, headers=headers)
        if reply.status >= 300:
            raise self._refusal(call, rows, reply)
        return reply.body

    def _send(self, call: str, method: str, url: str, within: HttpCall, **request: Any) -> _Reply:
        with within:
            try:
                with self._sessions.mine().request(
                    method, url, timeout=self._timeout, **request
                ) as response:
                    reply = _Reply(response.status, response.headers, _body(call, response))
            except HTTPError as error:
                told = _TOO_SLOW if within.is_overdue else self._keyless(network_reason(error))
                # Without its cause: what came may be in it, and the key in that.
                raise HordeUnreachable(f"{call}: {told}", may_have_worked=within.was_sent) from None
            if within.is_overdue:  # a body without a length just ends when it is cut
                raise HordeUnreachable(f"{call}: {_TOO_SLOW}", may_have_worked=True)
            return reply

    def _refusal(self, call: str, rows: refusals.Rows, reply: _Reply) -> HordeError:
        """What an answer of 300 and above of the API means."""
        status, text = reply.status, self._keyless(reply.body.decode("utf-8", "replace"))
        if status in (408, 429) or not 400 <= status < 500:  # it does not speak of our request
            headers = {name: self._keyless(value) for name, value in reply.headers.items()}
            return _refusal_by_status(call, rows, status, headers, text)
        refused = self._read(call, _REFUSED, text.encode(), may_have_worked=False)
        return refusals.refusal(rows, _rc(refused, status), status, refused.text())

    def _read(
        self, call: str, shape: TypeAdapter[Read], answer: bytes, *, may_have_worked: bool = True
    ) -> Read:
        """An answer as a type. Raises HordeUnreachable with what came instead."""
        try:
            return shape.validate_json(answer)
        except ValidationError as error:
            came = _excerpt(self._keyless(answer.decode("utf-8", "replace")))
            told = f"{call}: not an answer of a horde ({_one_line(error)}): {came}"
            raise HordeUnreachable(told, may_have_worked=may_have_worked) from None  # as above

    def _keyless(self, text: str) -> str:
        """A stranger's text. The horde writes a key that it does not know into its answer."""
        return text.replace(self._api_key, "<api_key>")


def _upload_host(url: str) -> str:
    """Raises UploadRefused for an address that no picture can be put to."""
    try:
        target = parse_url(url)
    except LocationValueError as error:
        raise _nowhere("an address that can't be read") from error
    if target.scheme not in ("http", "https") or not target.host or target.auth is not None:
        raise _nowhere("expected an http(s) address with a host, and without a password")
    return target.host.strip("[]")


def _nowhere(why: str) -> HordeError:
    return refusals.refusal(refusals.UPLOAD, refusals.NOWHERE, 0, why)


def _body(call: str, response: BaseHTTPResponse) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > _LONGEST_REPLY_BYTES:
            told = f"{call}: the answer is longer than any of the horde's"
            raise HordeUnreachable(told, may_have_worked=True)
    return bytes(body)


def _refusal_by_status(
    call: str, rows: refusals.Rows, status: int, headers: Mapping[str, str], text: str
) -> HordeError:
    where = headers.get("Location", "").partition("?")[0] if status < 400 else ""
    told = f"to {printable(where[:120])}" if where else _excerpt(text)
    wait_seconds = retry_after_seconds(headers)
    return refusals.refusal(rows, f"HTTP{status}", status, f"{call}: {told}", wait_seconds)


def _rc(refused: Refused, status: int) -> str:
    if refused.rc:
        return printable(refused.rc)[:60]
    if status != 400:
        return f"HTTP{status}"
    return refusals.INVALID_BODY if refused.errors else refusals.UNREADABLE_BODY


def _excerpt(answer: str) -> str:
    """The beginning of an answer, fit for a log line."""
    return repr(answer[:120]) if answer else "an empty answer"


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    return " ".join(str(error).split())[:300]

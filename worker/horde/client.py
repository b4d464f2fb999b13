"""The horde's HTTP interface, and the only module of the worker that knows HTTP.

Each call is one request: the caller decides about another try. What a call raises besides its
own errors: HordeUnreachable, whenever there is no answer to make sense of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from multidict import CIMultiDict
from pydantic import TypeAdapter

from worker.backoff import retry_after_seconds
from worker.clock import elapsed_seconds
from worker.errors import HordeError, HordeRefused, HordeUnreachable, UnusableJob
from worker.horde import refusals
from worker.horde.accounts import (
    Account,
    ChangedWorker,
    ServedModel,
    Team,
    WorkerChanges,
    WorkerRecord,
    spellings_of,
)
from worker.horde.api import (
    EmptyPop,
    FullPop,
    NothingToDo,
    Offer,
    PopIds,
    Popped,
    Refused,
    Submission,
    Submitted,
)
from worker.horde.forms import (
    Form,
    FormId,
    FormOffer,
    FormsPop,
    FormSubmission,
    FullForm,
)
from worker.horde.kinds import PoppedTasks
from worker.horde.swagger import ServerWords, Swagger
from worker.horde.texts import FullText, TextJob, TextOffer, TextSubmission
from worker.net.addresses import Neighbourhood, NoBusiness, parsed, written_out
from worker.net.call import Http
from worker.net.messages import AnswerTooLong, HttpFailed, HttpRequest
from worker.net.untrusted import one_line, read_json, reason_of

_MOST_BYTES = 2 << 20  # of an answer: there is room for a thousand models
_MOST_JOB_BYTES = 64 << 20  # of a job whose source images come as base64
_MOST_ERROR_BYTES = 64 << 10  # what follows is not read
_EXCERPT_BYTES = 4 << 10
_MOST_PARTS = 30_000  # values of an answer: ten for each of a thousand models, and as many more

OtherSubmission = FormSubmission | TextSubmission
"""The outcome of what is no picture's job."""

Read = TypeVar("Read")
_ANYTHING: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_POP_IDS, _EMPTY_POP, _FULL_POP = TypeAdapter(PopIds), TypeAdapter(EmptyPop), TypeAdapter(FullPop)
_FORMS_POP, _FORM_ID, _FULL_FORM = (
    TypeAdapter(FormsPop),
    TypeAdapter(FormId),
    TypeAdapter(FullForm),
)
_FULL_TEXT = TypeAdapter(FullText)
_SUBMITTED, _REFUSED = TypeAdapter(Submitted), TypeAdapter(Refused)
_ACCOUNT, _WORKER = TypeAdapter(Account), TypeAdapter(WorkerRecord)
_CHANGED = TypeAdapter(ChangedWorker)
_TEAMS = TypeAdapter(tuple[Team, ...])
_SWAGGER = TypeAdapter(Swagger)
_SERVED_MODELS = TypeAdapter(tuple[ServedModel, ...])


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


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
        self._http = Http(client_agent, trust_env=True)
        self._neighbourhood = Neighbourhood(url)
        self.words = ServerWords()
        """Those that `pop` and `submit` may use."""

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
        self._http.close()

    def pop(self, offer: Offer) -> Popped:
        """Ask for a job, in words that the server knows.

        Raises NotAllowed, HordeOnHold, HordeRefused, and UnusableJob for ids to be faulted.
        """
        call = "POST generate/pop"
        popped_at = elapsed_seconds()
        if not self.words.extended_control:
            offer = replace(offer, allow_extended_controlnet=None)
        answer = self._call(call, refusals.POP, content=offer.body(), most_bytes=_MOST_JOB_BYTES)
        ids = self._read(call, _POP_IDS, answer).given
        if not ids:
            empty = self._read(call, _EMPTY_POP, answer)
            return NothingToDo(skipped=empty.skipped, messages=empty.messages)
        try:
            return read_json(_FULL_POP, answer, _MOST_PARTS).job(ids, popped_at)
        except ValueError as error:
            raise UnusableJob(ids, f"{call}: {reason_of(error)}") from error

    def submit(self, result: Submission) -> float:
        """Hand in one job's outcome; the kudos for it (0.0 for a fault).

        A note that the server has no word for is left out: it would cost the picture. Raises
        HordeRefused, whose `fate` says what became of the job.
        """
        call = "POST generate/submit"
        notes = tuple(filter(self.words.takes, result.gen_metadata))
        result = replace(result, gen_metadata=notes)
        answer = self._call(call, refusals.SUBMIT, content=result.body())
        return self._read(call, _SUBMITTED, answer).reward

    def pop_forms(self, offer: FormOffer) -> PoppedTasks[Form]:
        """Ask for forms of alchemy; none is no error. Raises what `pop` does but UnusableJob."""
        call = "POST interrogate/pop"
        popped_at = elapsed_seconds()
        answer = self._call(call, refusals.POP, content=offer.body(), most_bytes=_MOST_JOB_BYTES)
        forms, unusable = list[Form](), dict[str, str]()
        for told in self._read(call, _FORMS_POP, answer).forms or ():
            try:
                form = _FULL_FORM.validate_python(told)
                forms.append(form.job((form.id,), popped_at))
            except ValueError as error:
                with suppress(ValueError):  # without an id, nobody can be told
                    unusable[_FORM_ID.validate_python(told).id] = f"{call}: {reason_of(error)}"
        return PoppedTasks(tuple(forms), unusable)

    def pop_texts(self, offer: TextOffer) -> PoppedTasks[TextJob]:
        """Ask for texts; as `pop_forms`."""
        call = "POST generate/text/pop"
        popped_at = elapsed_seconds()
        answer = self._call(call, refusals.POP, content=offer.body(), most_bytes=_MOST_JOB_BYTES)
        ids = tuple(dict.fromkeys(self._read(call, _POP_IDS, answer).given))
        if not ids:
            return PoppedTasks(())
        try:
            return PoppedTasks(read_json(_FULL_TEXT, answer, _MOST_PARTS).texts(ids, popped_at))
        except ValueError as error:
            return PoppedTasks((), dict.fromkeys(ids, f"{call}: {reason_of(error)}"))

    def submit_task(self, result: OtherSubmission) -> float:
        """Hand in the outcome of another kind of work; as `submit`."""
        call = f"POST {result.endpoint}"
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
            for address in written_out(host):  # a proxy of the owner's might go there
                self._neighbourhood.permit(host, address)
            request = self._request("PUT", url, {"Content-Type": content_type}, image, seconds)
            reply = self._send(call, replace(request, screen=self._neighbourhood.permit))
        except NoBusiness as error:
            raise refusals.refusal(refusals.UPLOAD, refusals.NOWHERE, 0, str(error)) from error
        if reply.status >= 300:
            text = reply.body.decode("utf-8", "replace")
            raise _refusal_by_status(call, refusals.UPLOAD, reply.status, reply.headers, text)

    def learn_words(self) -> None:
        """Read what the server knows (`words`). Raises HordeError; nothing is known then."""
        call = "GET swagger.json"
        words = ServerWords()
        try:
            answer = self._call(call, refusals.PUBLIC, keyed=False, api="api")
            words = self._read(call, _SWAGGER, answer).words
        finally:
            self.words = words

    def heartbeat(self) -> None:
        """Returns when the horde is there and answers as a horde does."""
        call = "GET status/heartbeat"
        self._read(call, _ANYTHING, self._call(call, refusals.PUBLIC, keyed=False))

    def whoami(self) -> Account:
        """The account of the api key. Raises NotAllowed for a key that nobody has."""
        call = "GET find_user"
        return self._read(call, _ACCOUNT, self._call(call, refusals.ACCOUNT))

    def worker_by_name(self, name: str, account: Account) -> WorkerRecord | None:
        """The worker of this name, whoever owns it; None where nobody is known to have the name.

        The horde's addresses have no room for a name with a slash, so that one is looked for
        among the workers of `account` alone.
        """
        spellings = spellings_of(name)
        if "/" in name:
            own = (self._worker(quote(each, safe="")) for each in account.worker_ids)
            return next((each for each in own if each and each.name in spellings), None)
        named = (self._worker(f"name/{quote(each, safe='')}") for each in spellings)
        return next(filter(None, named), None)

    def change_worker(self, worker_id: str, changes: WorkerChanges) -> ChangedWorker:
        """Change the horde's record of a worker; what it holds now of what was changed.

        Raises NotAllowed where the worker is not the account's.
        """
        call = f"PUT workers/{quote(worker_id, safe='')}"
        answer = self._call(call, refusals.WORKER, content=changes.body())
        return self._read(call, _CHANGED, answer)

    def teams(self) -> tuple[Team, ...]:
        call = "GET teams"
        return self._read(call, _TEAMS, self._call(call, refusals.PUBLIC, keyed=False))

    def _worker(self, path: str) -> WorkerRecord | None:
        call = f"GET workers/{path}"
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
        most_bytes: int = _MOST_BYTES,
        api: str = "api/v2",
    ) -> bytes:
        """The body of a 200 answer of the horde's API."""
        method, path = call.split(" ", 1)
        headers = {"Client-Agent": self._client_agent}
        if keyed:
            headers["apikey"] = self._api_key
        body = None
        if content is not None:
            headers["Content-Type"], body = "application/json", json.dumps(content).encode()
        url = f"{self.url}/{api}/{path}"
        request = self._request(method, url, headers, body, sum(self._timeout))
        reply = self._send(call, request, most_bytes)
        if reply.status >= 300:
            raise self._refusal(call, rows, reply)
        return reply.body

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds: float
    ) -> HttpRequest:
        connect_seconds, silence_seconds = self._timeout
        return HttpRequest(
            method=method,
            url=url,
            headers=headers,
            body=body,
            until=elapsed_seconds() + seconds,
            connect_seconds=connect_seconds,
            silence_seconds=silence_seconds,
        )

    def _send(self, call: str, request: HttpRequest, most_bytes: int = _MOST_BYTES) -> _Reply:
        try:
            with self._http.ask(request) as answer:
                is_error = answer.status >= 300
                body = answer.beginning(_MOST_ERROR_BYTES) if is_error else answer.read(most_bytes)
                return _Reply(answer.status, answer.headers, body)
        except HttpFailed as error:
            told = f"{self._keyless(str(error))} ({call})"
            # Without its cause: what came may be in it, and the key in that.
            raise HordeUnreachable(told, may_have_worked=error.was_sent) from None
        except AnswerTooLong:
            told = f"{call}: the answer is longer than any of the horde's"
            raise HordeUnreachable(told, may_have_worked=True) from None

    def _refusal(self, call: str, rows: refusals.Rows, reply: _Reply) -> HordeError:
        """What an answer of 300 and above of the API means."""
        status, text = reply.status, self._keyless(reply.body.decode("utf-8", "replace"))
        if status in (408, 429) or not 400 <= status < 500:  # it does not speak of our request
            headers = CIMultiDict((k, self._keyless(v)) for k, v in reply.headers.items())
            return _refusal_by_status(call, rows, status, headers, text)
        refused = self._read(call, _REFUSED, text.encode(), may_have_worked=False)
        return refusals.refusal(rows, _rc(refused, status), status, refused.text())

    def _read(
        self, call: str, shape: TypeAdapter[Read], answer: bytes, *, may_have_worked: bool = True
    ) -> Read:
        """An answer as a type. Raises HordeUnreachable with what came instead."""
        try:
            return read_json(shape, answer, _MOST_PARTS)
        except ValueError as error:
            came = _excerpt(self._keyless(answer[:_EXCERPT_BYTES].decode("utf-8", "replace")))
            told = f"{call}: not an answer of a horde ({self._keyless(reason_of(error))}): {came}"
            raise HordeUnreachable(told, may_have_worked=may_have_worked) from None  # as above

    def _keyless(self, text: str) -> str:
        """A stranger's text. The horde writes a key that it does not know into its answer."""
        return text.replace(self._api_key, "<api_key>")


def _upload_host(url: str) -> str:
    """Raises UploadRefused for an address that no picture can be put to."""
    try:
        target = parsed(url)
    except ValueError as error:
        raise _nowhere("an address that can't be read") from error
    if target.scheme not in ("http", "https") or not target.host or target.auth is not None:
        raise _nowhere("expected an http(s) address with a host, and without a password")
    return target.host.strip("[]")


def _nowhere(why: str) -> HordeError:
    return refusals.refusal(refusals.UPLOAD, refusals.NOWHERE, 0, why)


def _refusal_by_status(
    call: str, rows: refusals.Rows, status: int, headers: Mapping[str, str], text: str
) -> HordeError:
    where = headers.get("Location", "").partition("?")[0] if status < 400 else ""
    told = f"to {one_line(where, 120)}" if where else _excerpt(text)
    wait_seconds = retry_after_seconds(headers)
    return refusals.refusal(rows, f"HTTP{status}", status, f"{call}: {told}", wait_seconds)


def _rc(refused: Refused, status: int) -> str:
    if refused.rc:
        return refused.rc
    if status != 400:
        return f"HTTP{status}"
    return refusals.INVALID_BODY if refused.errors else refusals.UNREADABLE_BODY


def _excerpt(answer: str) -> str:
    """The beginning of an answer, fit for a log line."""
    return repr(answer[:120]) if answer else "an empty answer"

"""Texts: requests, their handing out to scribes, and what is paid for them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping

from worker.sandbox.errors import Refusal, ServerBug
from worker.sandbox.kinds.text_records import (
    ScribeRow,
    TextEntry,
    TextRequest,
    TextRow,
    text_entry,
)
from worker.sandbox.kinds.text_wire import (
    SPOKEN_FOR_NOTHING,
    TextAskBody,
    TextPopBody,
    TextSubmitBody,
)
from worker.sandbox.kinds.workers import Workers
from worker.sandbox.records import Records, State
from worker.sandbox.registration import admitted_owner
from worker.sandbox.replies import Json
from worker.sandbox.settlement import on_record

LIFE_SECONDS = 20 * 60  # of a request, from its last pop
FAULTS_OF_A_FAULTED_REQUEST = 3
SLOW_TOKENS_PER_SECOND = 3.0  # slower scribes get no request that minds
SUSPICIOUS_TOKENS_PER_SECOND = 150.0
VALIDATED = frozenset(
    {
        "AI Horde Worker",
        "AI Horde Worker~aphrodite~oai",
        "AI Horde Worker~aphrodite~kai",
        "KoboldCppEmbedWorker",
        "TabbyAPI",
    }
)
UNVALIDATED_SHARE = 0.3
KNOWN_MODELS: Mapping[str, float] = {"koboldcpp/LLaMA2-13B-Tiefighter": 13.0}
"""Billions of parameters of the models in this horde's reference."""
_UNKNOWN_BILLIONS = 2.7  # of a trusted owner's model that no reference has
_CHARACTERS_PER_TOKEN, _LEAST_TOKENS = 4, 20
_EMPTY: Json = {
    "id": None, "ids": [], "messages": [], "ttl": None, "extra_source_images": None, "skipped": {},
    "softprompt": None, "model": None,
}  # fmt: skip


class Texts:
    """The rows and rules of texts. The horde's lock is held around each call."""

    def __init__(self, records: Records, ttl_seconds: int):
        self._records = records
        self._ttl_seconds = ttl_seconds  # from the pop; then the cleaner takes a text away
        self.workers = Workers(ScribeRow)
        self._requests: dict[str, TextRequest] = {}
        self._texts: dict[str, TextRow] = {}

    # The client's side.

    def ask(self, key: str, body: TextAskBody, now: float) -> Json:
        account = self._records.account(key)
        id = str(uuid.uuid4())
        expires_at = now + LIFE_SECONDS
        request = TextRequest(id, account, body, now, expires_at, body.params.n)
        self._requests[id] = request
        return {"id": id, "kudos": 0.0}

    def status(self, id: str) -> Json:
        request = self._request(id)
        done = [row for row in request.texts if row.state is State.ok]
        return {
            "generations": [_delivered(row) for row in done],
            "finished": len(done),
            "processing": request.count(State.processing),
            "restarted": request.restarted,
            "waiting": request.waiting,
            "done": request.done,
            "faulted": request.faulted,
            "wait_time": 0,
            "queue_position": 1 if request.waiting else 0,
            "kudos": request.consumed_kudos,
            "is_possible": True,
        }

    def cancel(self, id: str) -> Json:
        """Hand out no more of it. What scribes hold may still be submitted."""
        request = self._request(id)
        request.cancelled, request.waiting = True, 0
        return self.status(id)

    # The worker's side.

    def pop(self, key: str, body: TextPopBody, now: float) -> Json:
        worker = self._checked_in(key, body, now)
        candidates = self._candidates(worker)
        if worker.maintenance is not None:
            candidates = [each for each in candidates if each.account is worker.owner]
        for request in candidates:
            if model := _fitting_model(worker, body, request):
                return self._hand_out(worker, body, request, model, now)
        if worker.maintenance is not None:
            raise Refusal("WorkerMaintenance", message=worker.maintenance)
        defaults = {"max_context_length": 2048, "max_length": 80}
        return {**_EMPTY, "payload": defaults | SPOKEN_FOR_NOTHING}

    def lose_pop(self, ids: Iterable[str]) -> None:
        for id in ids:
            if id in self._texts:
                self._texts[id].unheard = True

    def submit(self, key: str, body: TextSubmitBody, now: float) -> Json:
        row = self._texts.get(body.id)
        with on_record(row, body.state, now):
            return {"reward": self._settle(key, body, now)}

    def clean(self, at: float) -> None:
        for row in self._texts.values():
            if row.state is State.processing and at > row.over_at:
                self._drop(row, State.aborted)
        for request in self._requests.values():
            request.faulted |= request.restarted >= FAULTS_OF_A_FAULTED_REQUEST
            request.expired |= request.expires_at <= at

    # What anyone may look at.

    def entries(self) -> tuple[TextEntry, ...]:
        return tuple(map(text_entry, self._texts.values()))

    @property
    def waiting(self) -> int:
        """Texts that are still to be handed out."""
        rows = self._requests.values()
        return sum(row.waiting for row in rows if not (row.faulted or row.expired))

    def _request(self, id: str) -> TextRequest:
        request = self._requests.get(id)
        if request is None or request.expired:
            raise Refusal("RequestNotFound", id=id)
        return request

    def _checked_in(self, key: str, body: TextPopBody, now: float) -> ScribeRow:
        owner = admitted_owner(self._records, key, body.priority_usernames, now)
        if not body.models:
            told = "Unfortunately we cannot accept workers serving unrecognised models at this time"
            raise Refusal("BadRequest", message=told)
        for model in body.models:
            _, brand, host = model.partition("::")
            if brand and host != owner.user.username:
                raise Refusal("BadRequest", message=f"This model can only be hosted by {host}")
        return self.workers.checked_in(owner, body, now)

    def _candidates(self, worker: ScribeRow) -> list[TextRequest]:
        waiting = [
            request
            for request in self._requests.values()
            if request.waiting and not (request.expired or request.faulted)
        ]
        return sorted(
            waiting,
            key=lambda request: worker.comes_first(request.account, request.created_at),
        )

    def _hand_out(
        self,
        worker: ScribeRow,
        body: TextPopBody,
        request: TextRequest,
        model: str,
        now: float,
    ) -> Json:
        amount = min(request.waiting, body.amount)
        over = now + self._ttl_seconds
        rows = [
            TextRow(str(uuid.uuid4()), request, worker, model, now, over) for _ in range(amount)
        ]
        request.waiting -= amount
        request.expires_at = now + LIFE_SECONDS
        request.texts.extend(rows)
        self._texts |= {row.id: row for row in rows}
        asked = request.body.params.model_dump(exclude_none=True, exclude={"n"})
        payload = {"prompt": request.body.prompt, "n": 1, **SPOKEN_FOR_NOTHING, **asked}
        ids = [row.id for row in rows]
        told: Json = {"payload": payload, "id": ids[0], "ids": ids, "ttl": self._ttl_seconds}
        return {**_EMPTY, **told, "model": model}

    def _settle(self, key: str, body: TextSubmitBody, now: float) -> float:
        row = self._texts.get(body.id)
        if row is None or row.request.expired:
            raise Refusal("InvalidJobID", id=body.id)
        if key not in self._records.accounts:
            raise ServerBug
        if row.scribe.owner is not self._records.accounts[key]:
            raise Refusal("WrongCredentials")
        if row.state is State.ok:
            raise Refusal("DuplicateGen", id=row.id)
        if body.state == "faulted":
            if row.state is State.processing:
                self._drop(row, State.faulted)
            else:  # as the server does, although the text waits again already, or is written
                row.request.waiting += 1
            return 0.0
        if row.state is not State.processing:
            raise Refusal("AbortedGen", id=row.id, ttl=self._ttl_seconds)
        row.state, row.text, row.said = State.ok, body.generation, body.state
        row.is_csam = body.state == "csam" or bool(body.gen_metadata)
        self._pay(row, now)
        return row.reward

    def _pay(self, row: TextRow, now: float) -> None:
        scribe = row.scribe
        scribe.fulfilled += 1
        tokens = tokens_of(row.text, row.request.body.params.max_length)
        speed = tokens / max(now - row.popped_at, 0.001)
        scribe.speeds.append(speed)
        scribe.suspicions += speed > SUSPICIOUS_TOKENS_PER_SECOND
        row.reward = reward(row)
        scribe.kudos += row.reward
        scribe.owner.kudos += row.reward
        row.request.account.kudos -= row.reward
        row.request.consumed_kudos += row.reward

    def _drop(self, row: TextRow, state: State) -> None:
        row.state = state
        row.scribe.uncompleted += 1
        if not row.request.cancelled:
            row.request.waiting += 1


def tokens_of(text: str, most: float = math.inf) -> int:
    """As the server counts them, which knows no tokenizer."""
    return int(min(most, max(_LEAST_TOKENS, math.ceil(len(text) / _CHARACTERS_PER_TOKEN))))


def reward(row: TextRow) -> float:
    """Kudos for one text, by the size of the model and the length of text and prompt."""
    body, scribe = row.request.body, row.scribe
    share = 1.0 if is_validated(scribe.offer.bridge_agent) else UNVALIDATED_SHARE
    context = 1.2 + 2.2 ** math.log2(tokens_of(body.prompt) / 1024)
    context = min(30.0, max(0.1, context))
    billions = KNOWN_MODELS.get(row.model.partition("::")[0])
    tokens = tokens_of(row.text, body.params.max_length)
    if billions is None:  # nothing is said of validated names here
        return context * (tokens * _UNKNOWN_BILLIONS / 100 if scribe.owner.user.trusted else 1)
    return round(tokens * (max(billions, 13) / 13) ** 0.2 * billions / 125 * context * share, 2)


def is_validated(bridge_agent: str) -> bool:
    """By its name alone."""
    return bridge_agent.partition(":")[0] in VALIDATED


def _fitting_model(worker: ScribeRow, body: TextPopBody, request: TextRequest) -> str | None:
    """None, without a word of why, where the request is not for this scribe."""
    asked, offer = request.body, worker.offer
    params = asked.params
    is_too_long = (
        params.max_length > offer.max_length or params.max_context_length > offer.max_context_length
    )
    is_untrusted = asked.trusted_workers and not worker.owner.user.trusted
    is_slow = not asked.slow_workers and worker.tokens_per_second < SLOW_TOKENS_PER_SECOND
    is_unknown = asked.validated_backends and not is_validated(offer.bridge_agent)
    if is_too_long or is_untrusted or is_slow or is_unknown:
        return None
    return next((name for name in body.models if not asked.models or name in asked.models), None)


def _delivered(row: TextRow) -> Json:
    metadata = [{"type": "censorship", "value": "csam"}] if row.is_csam else []
    return {
        "text": row.text,
        "seed": 0,
        "gen_metadata": metadata,
        "worker_id": row.scribe.id,
        "worker_name": row.scribe.name,
        "model": row.model,
        "state": row.said,
    }

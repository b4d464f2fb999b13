"""Alchemy: forms over one picture, each of them a job of its own id.

The server keeps results by the address of a picture, and hands those out without any worker; this
horde does not, so that each form is done each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from worker.sandbox.errors import Refusal, ServerBug
from worker.sandbox.kinds.alchemy_records import (
    Alchemist,
    FormEntry,
    FormRequest,
    FormRow,
    Hold,
    SourcePicture,
    form_entry,
)
from worker.sandbox.kinds.alchemy_wire import (
    IMAGE_RESULTS,
    POST_PROCESSORS,
    FormPopBody,
    FormSubmitBody,
    InterrogateBody,
)
from worker.sandbox.kinds.workers import Workers
from worker.sandbox.records import Records, State
from worker.sandbox.registration import admitted_owner
from worker.sandbox.replies import Json, Links
from worker.sandbox.settlement import on_record

FORM_SECONDS = 180  # from the pop; then the cleaner puts it back
LIFE_SECONDS = 20 * 60  # of a request, from its last pop
MOST_ABORTS = 4  # the fourth faults the form for good
SLOW_SECONDS = 10.0  # an alchemist that takes longer on average gets no request that minds
_KUDOS_PER_TILE = 3  # of a post-processor
_ANNOTATION_KUDOS_PER_TILE = 5
_KUDOS: Mapping[str, float] = {"interrogation": 3.0}  # 1 of every other form


class Alchemy:
    """The rows and rules of alchemy. The horde's lock is held around each call."""

    def __init__(self, records: Records, form_seconds: int = FORM_SECONDS):
        self._records = records
        self._form_seconds = form_seconds
        self.workers = Workers(Alchemist)
        self._requests: dict[str, FormRequest] = {}
        self._forms: dict[str, FormRow] = {}

    # The client's side.

    def ask(self, key: str, body: InterrogateBody, source: SourcePicture, now: float) -> str:
        """The id of a new request, whose picture is to be kept under it. Raises Refusal."""
        account = self._records.account(key)
        request = FormRequest(str(uuid.uuid4()), account, body, source, now, now + LIFE_SECONDS)
        names = {asked.name: asked for asked in body.forms}  # asked for twice, it is stored once
        request.forms = [FormRow(str(uuid.uuid4()), request, each) for each in names.values()]
        self._requests[request.id] = request
        self._forms |= {form.id: form for form in request.forms}
        return request.id

    def status(self, id: str, links: Links) -> Json:
        request = self._request(id)
        return {"state": request.state, "forms": [_status(form, links) for form in request.forms]}

    def cancel(self, id: str, links: Links) -> Json:
        """A form that a worker has is cancelled too; the worker is paid for it at once."""
        request = self._request(id)
        for form in request.forms:
            if form.state in ("waiting", "processing"):
                if form.state == "processing":
                    self._pay(form.holds[-1], form)
                    form.holds[-1].state = State.cancelled
                form.state = "cancelled"
        return self.status(id, links)

    # The worker's side.

    def pop(self, key: str, body: FormPopBody, links: Links, now: float) -> Json:
        worker = self._checked_in(key, body, now)
        found = [form for form in self._candidates(worker) if self._fits(worker, body, form)]
        if worker.maintenance is not None:
            found = [form for form in found if form.request.account is worker.owner]
            if not found:
                raise Refusal("WorkerMaintenance", message=worker.maintenance)
        handed_out = found[: max(0, body.amount)]
        for form in handed_out:
            form.state = "processing"
            form.holds.append(Hold(form.id, worker, now, now + self._form_seconds))
            form.request.expires_at = now + LIFE_SECONDS
        forms = [_job(form, links) for form in handed_out]
        return {"forms": forms or None, "skipped": {}}

    def lose_pop(self, ids: Iterable[str]) -> None:
        for id in ids:
            if id in self._forms:
                self._forms[id].holds[-1].unheard = True

    def submit(self, key: str, body: FormSubmitBody, now: float) -> Json:
        form = self._forms.get(body.id)
        hold = form.holds[-1] if form and form.holds else None
        with on_record(hold, body.state, now):
            return {"reward": self._settle(key, body, now)}

    def clean(self, at: float) -> None:
        for request in self._requests.values():
            for form in request.forms:
                hold = form.holds[-1] if form.state == "processing" else None
                if hold is not None and at > hold.over_at:
                    hold.state = State.aborted
                    self._put_back(form, hold)
            if request.expires_at <= at:
                request.expired = True

    # What anyone may look at.

    def entries(self, uploads: Mapping[str, tuple[str, ...]]) -> tuple[FormEntry, ...]:
        """All forms; `uploads` has the digests of what was put under each id."""
        return tuple(form_entry(form, uploads.get(form.id, ())) for form in self._forms.values())

    @property
    def form_ids(self) -> tuple[str, ...]:
        return tuple(self._forms)

    def _request(self, id: str) -> FormRequest:
        request = self._requests.get(id)
        if request is None or request.expired:
            raise Refusal("RequestNotFound", id=id)
        return request

    def _checked_in(self, key: str, body: FormPopBody, now: float) -> Alchemist:
        if any("#" not in each for each in body.priority_usernames):
            told = "Priority usernames need to be provided in the form of 'alias#number'."
            raise Refusal("BadRequest", message=told)
        owner = admitted_owner(self._records, key, body.priority_usernames, now)
        return self.workers.checked_in(owner, body, now)

    def _candidates(self, worker: Alchemist) -> list[FormRow]:
        waiting = [
            form
            for request in self._requests.values()
            if not request.expired
            for form in request.forms
            if form.state == "waiting"
        ]
        return sorted(
            waiting,
            key=lambda form: worker.comes_first(form.request.account, form.request.created_at),
        )

    def _fits(self, worker: Alchemist, body: FormPopBody, form: FormRow) -> bool:
        if form.name not in body.forms or form.request.tiles > worker.offer.max_tiles:
            return False
        if form.name == "annotation":
            wanted = (form.asked.payload or {}).get("control_type")
            if wanted not in body.annotation_types:
                return False
        asked = form.request.body
        if asked.trusted_workers and not worker.owner.user.trusted:
            return False
        return asked.slow_workers or worker.seconds_per_form < SLOW_SECONDS

    def _settle(self, key: str, body: FormSubmitBody, now: float) -> float:
        form = self._forms.get(body.id)
        if form is None or form.request.expired or not form.holds:
            raise Refusal("InvalidJobID", id=body.id)
        if key not in self._records.accounts or body.result is None:
            raise ServerBug
        hold = form.holds[-1]
        if hold.alchemist.owner is not self._records.accounts[key]:
            raise Refusal("WrongCredentials")
        if form.state != "processing":
            raise Refusal("DuplicateGen", id=form.id)
        if body.state == "faulted":
            hold.state = State.faulted
            self._put_back(form, hold)
            return 0.0
        form.state, form.result, hold.state = "done", body.result, State.ok
        hold.alchemist.fulfilled += 1
        hold.alchemist.seconds.append(now - hold.popped_at)
        self._pay(hold, form)
        form.request.account.kudos -= hold.reward + (2 if form.request.body.slow_workers else 1)
        return hold.reward

    def _put_back(self, form: FormRow, hold: Hold) -> None:
        form.aborts += 1
        hold.alchemist.uncompleted += 1
        form.state = "faulted" if form.aborts >= MOST_ABORTS else "waiting"

    def _pay(self, hold: Hold, form: FormRow) -> None:
        hold.reward = reward(form.name, form.request.tiles)
        hold.alchemist.kudos += hold.reward
        hold.alchemist.owner.kudos += hold.reward


def reward(form: str, tiles: int) -> float:
    """Kudos for one form over a picture of so many tiles."""
    if form in POST_PROCESSORS:
        return float(_KUDOS_PER_TILE * tiles)
    if form == "annotation":
        return float(_ANNOTATION_KUDOS_PER_TILE * tiles)
    return _KUDOS.get(form, 1.0)


def _job(form: FormRow, links: Links) -> Json:
    source = form.request.source
    stored = f"{form.request.id}.webp"
    job: Json = {
        "id": form.id,
        "form": form.name,
        "source_image": source.address or links.get("sources", stored, form.request.created_at),
    }
    if form.asked.payload is not None:
        job["payload"] = form.asked.payload
    if form.name in IMAGE_RESULTS:
        job["r2_upload"] = links.put(f"{form.id}.webp")
    return job


def _status(form: FormRow, links: Links) -> Json:
    told: Json = {"form": form.name, "state": form.state}
    if form.result is not None:
        result = dict(form.result)
        if result.get(form.name) == "R2":
            result[form.name] = links.get("transient", f"{form.id}.webp")
        told["result"] = result
    return told

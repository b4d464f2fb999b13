"""Workers: who may run one, and what a check-in stores.

A check-in happens in a worker's first 30 seconds with every pop, later at most every 30. Between
two of them only a pop's models, amount and priorities count.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from html import escape

from worker.sandbox.errors import Refusal, ServerBug
from worker.sandbox.records import ANONYMOUS_KEY, Account, Records, Worker
from worker.sandbox.replies import Json
from worker.sandbox.rules.matching import Offer
from worker.sandbox.wire import PopBody, WorkerBody

CHECK_IN_SECONDS = 30
MAX_NAME_LENGTH = 100
MAX_MODELS = 300
MAX_BLACKLIST_WORDS = 200
MAX_BLACKLIST_WORD_LENGTH = 15
MAX_WORKERS_UNTRUSTED = 3
MAX_WORKERS_TRUSTED = 20
UPTIME_SECONDS_PER_REWARD = 600
UNWANTED_NAMES = ("colab", "tpu", "google")


def stored_text(text: str) -> str:
    """What the server keeps of an owner's text: it shows its pages to browsers."""
    return escape(text, quote=False).strip()


def offer_of(records: Records, key: str, body: PopBody, now: float) -> Offer:
    """The offer that this pop makes; registers or refreshes its worker. Raises Refusal."""
    body = body.model_copy(update={"name": stored_text(body.name)})
    owner = admitted_owner(records, key, body.priority_usernames, now)
    known = [name for name in body.models if owner.user.customizer or name in records.reference]
    models = tuple(known[:MAX_MODELS])
    worker = records.workers.get(body.name)
    if worker is None:
        _check_new_worker(records, owner, body)
    elif worker.owner is not owner:
        raise Refusal("WrongCredentials")
    if worker is None or _check_in_is_due(worker, now):
        worker, checks_in = _checked_in(records, owner, body, models, now), True
    else:
        checks_in = False
    return Offer(worker, models, body.amount, body.priority_usernames, checks_in)


def admitted_owner(
    records: Records, key: str, priority_usernames: Sequence[str], now: float
) -> Account:
    """Whose key it is. Raises Refusal where this account may run no worker now."""
    if now < records.timeout_until:
        raise Refusal("TimeoutIP", seconds=round(records.timeout_until - now))
    owner = records.account(key)
    if key == ANONYMOUS_KEY:
        raise Refusal("AnonForbiddenWorker")
    if owner.flagged:
        raise Refusal("WorkerFlaggedMaintenance")
    if any("#" not in name for name in priority_usernames):
        raise Refusal("InvalidPriorityUsername")
    return owner


def _check_new_worker(records: Records, owner: Account, body: PopBody) -> None:
    if len(body.name) > MAX_NAME_LENGTH:
        raise ServerBug
    for word in UNWANTED_NAMES:
        if word in body.name.lower():
            raise Refusal("BadRequest", message=f"Please do not use '{word}' in worker names.")
    if records.invite_only_mode:
        raise Refusal("WorkerInviteOnly")
    owned = sum(worker.owner is owner for worker in records.workers.values())
    # Both limits are refused one worker later than their messages say, as on the server.
    if not owner.user.trusted and owned > MAX_WORKERS_UNTRUSTED:
        raise Refusal("TooManyWorkers")
    if owner.user.trusted and owned > MAX_WORKERS_TRUSTED:
        raise Refusal("TooManyWorkersTrusted")


def _check_in_is_due(worker: Worker, now: float) -> bool:
    young = now - worker.created_at <= CHECK_IN_SECONDS
    return young or now - worker.checked_in_at >= CHECK_IN_SECONDS


def _checked_in(
    records: Records, owner: Account, body: PopBody, models: tuple[str, ...], now: float
) -> Worker:
    if not models:
        raise Refusal("BadRequest", message="Workers with unrecognised models are not accepted.")
    words = tuple(word[:MAX_BLACKLIST_WORD_LENGTH] for word in body.blacklist)
    stored = body.model_copy(update={"blacklist": words[:MAX_BLACKLIST_WORDS]})
    worker = records.workers.get(body.name)
    if worker is None:
        worker = Worker(str(uuid.uuid4()), body.name, owner, now, now, stored, models)
        records.workers[body.name] = worker
    else:
        _count_uptime(worker, now)
        worker.checked_in_at, worker.offer, worker.models = now, stored, models
    return worker


def _count_uptime(worker: Worker, now: float) -> None:
    """Time since the last check-in counts if the worker was online and not in maintenance."""
    if worker.maintenance is not None or not worker.online(now):
        return
    worker.uptime_seconds += now - worker.checked_in_at
    if worker.uptime_seconds - worker.rewarded_uptime_seconds <= UPTIME_SECONDS_PER_REWARD:
        return
    worker.rewarded_uptime_seconds = worker.uptime_seconds
    pay = 50 + 2 * len(worker.models) + (30 if worker.offer.allow_lora else 0)
    worker.kudos_uptime += pay
    if worker.owner.user.trusted:
        worker.owner.kudos += pay
    else:
        worker.owner.evaluating_kudos += pay


DEFAULT_MAINTENANCE_MESSAGE = "This worker has been put into maintenance mode by its owner."


MAX_MESSAGE_LENGTH = 300  # of the server's column


def modify(records: Records, key: str, id: str, body: WorkerBody) -> Json:
    """Change a worker as its owner or a moderator; echoes what changed. Raises Refusal.

    What comes before a refused change stays changed, as on the server.
    """
    worker, account = records.worker(id), records.account(key)
    changes: Json = {}
    if body.maintenance is not None:
        _insist_on_owner(worker, account, "NotOwner")
        _maintain(worker, on=body.maintenance, message=body.maintenance_msg)
        changes["maintenance"] = body.maintenance
    if body.info is not None:
        _insist_on_owner(worker, account, "NotOwner")
        worker.info = stored_text(body.info)
        changes["info"] = worker.info
    if body.paused is not None:
        raise Refusal("NotModerator")
    if body.name is not None:
        _insist_on_owner(worker, account, "NotModerator")
        _rename(records, worker, stored_text(body.name))
        changes["name"] = worker.name
    if body.team is not None:
        _insist_on_owner(worker, account, "NotModerator")
        changes["team"] = _join(records, worker, body.team)
    if not changes:
        raise Refusal("NoWorkerModSelected")
    return changes


def _insist_on_owner(worker: Worker, account: Account, rc: str) -> None:
    if worker.owner is not account and not account.user.moderator:
        raise Refusal(rc)
    if account.user.key == ANONYMOUS_KEY:
        raise Refusal("AnonForbiddenWorker")


def _maintain(worker: Worker, *, on: bool, message: str | None) -> None:
    if len(message or "") > MAX_MESSAGE_LENGTH:
        raise ServerBug
    told = DEFAULT_MAINTENANCE_MESSAGE if message is None else stored_text(message)
    worker.maintenance = told if on else None


def _rename(records: Records, worker: Worker, name: str) -> None:
    if name in records.workers:
        raise Refusal("WorkerNameAlreadyExists", name=name)
    del records.workers[worker.name]
    worker.name = name
    records.workers[name] = worker


def _join(records: Records, worker: Worker, team: str) -> str:
    """The name of the team that it is in now."""
    if team and team not in records.teams:
        raise Refusal("TeamNotFound", id=team)
    worker.team = team
    return records.teams.get(team, "None")

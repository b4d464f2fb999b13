"""What a worker's owner may change of its record."""

from __future__ import annotations

from worker.sandbox.errors import Refusal, ServerBug
from worker.sandbox.records import Account, Records, Worker
from worker.sandbox.reference import ANONYMOUS_KEY
from worker.sandbox.registration import stored_text
from worker.sandbox.replies import Json
from worker.sandbox.wire import WorkerBody

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

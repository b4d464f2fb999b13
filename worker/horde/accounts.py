"""Accounts, workers and teams as the horde's records show them, and what an owner changes there."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from worker.horde.api import Reply
from worker.net.untrusted import Count, Id, Label, Name, Number, Remark


class Account(Reply):
    """The owner of an api key. `username` is alias#id."""

    username: Label
    id: Count
    kudos: Number
    trusted: bool = False
    moderator: bool = False
    customizer: bool = False
    flagged: bool = False
    worker_count: Count = 0
    worker_ids: tuple[Id, ...] = ()

    def owns(self, worker: WorkerRecord) -> bool | None:
        """None where the horde does not say.

        Its list of an account's workers is up to minutes old and lacks alchemists, and the owner
        of a worker is told of those alone who make their workers public.
        """
        if worker.id in self.worker_ids:
            return True
        if worker.owner is None:
            return None
        return worker.owner.rpartition("#")[2] == str(self.id)  # the alias may change


class TeamOfWorker(Reply):
    name: Label | None = None


class Team(Reply):
    """A row of teams."""

    id: Id
    name: Name


def spellings_of(name: str) -> tuple[str, ...]:
    """What the horde may have made of a worker's name: most hordes keep it as HTML."""
    return tuple(dict.fromkeys((escape(name, quote=False).strip(), name)))


class WorkerRecord(Reply):
    """A worker as the horde knows it. `owner` is None where the horde keeps it private."""

    id: Id
    name: Name
    type: Label
    online: bool
    maintenance_mode: bool
    paused: bool | None = None
    owner: Label | None = None
    trusted: bool | None = None
    requests_fulfilled: Count | None = None
    kudos_rewards: Number | None = None
    uncompleted_jobs: Count | None = None
    uptime: Count | None = None  # seconds that it has been online in all
    info: Remark | None = None
    team: TeamOfWorker | None = None
    performance: Remark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerChanges:
    """What its owner changes of a worker's record; None leaves it as it is.

    `maintenance_message` is for maintenance that begins; `team` is a team's id, "" for none.
    """

    maintenance: bool | None = None
    maintenance_message: str | None = None
    info: str | None = None
    team: str | None = None

    def body(self) -> dict[str, Any]:
        """The body of PUT workers/{id}."""
        given = {
            "maintenance": self.maintenance,
            "maintenance_msg": self.maintenance_message,
            "info": self.info,
            "team": self.team,
        }
        return {name: value for name, value in given.items() if value is not None}


class ChangedWorker(Reply):
    """What a record holds now, of what was changed. `team` is the team's name."""

    maintenance: bool | None = None
    info: Remark | None = None
    team: Label | None = None


class ServedModel(Reply):
    """A row of status/models."""

    name: Name
    count: Count

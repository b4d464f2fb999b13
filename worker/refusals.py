"""What each refusal of the horde means for the worker, one row per return code (`rc`).

The rows are those of the server's pop and submit endpoints. A code without a row is judged by
the row of its HTTP status, where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from worker.errors import HordeError, HordeOnHold, HordeRefused, JobFate, NotAllowed


class Answer(Enum):
    """What the worker does about a refusal."""

    STOP = "stop and tell the owner"
    HOLD = "ask again later, slowly"
    GIVE_UP = "go on without this call; the row's fate says what became of the job"


@dataclass(frozen=True, slots=True)
class Row:
    """`remedy` is told to the owner; `wait_seconds` counts for HOLD, `fate` for GIVE_UP."""

    answer: Answer
    remedy: str
    wait_seconds: float = 0.0
    fate: JobFate = JobFate.OVER


# The server's schema check and its JSON reader answer 400 without an rc.
INVALID_BODY = "InvalidBody"

_WRONG_KEY = "put the key of your account into api_key; a shared key can't run a worker"
_ASK_MODERATORS = "ask the horde's moderators (the link is on its website)"
_FEWER_WORKERS = "retire a worker at the horde's website, or use the name of one you have"
_OTHER_NAME = "choose another dreamer_name"
_SEE_MESSAGE = "see the message; the horde's moderators know more"

POP: Mapping[str, Row] = MappingProxyType(
    {
        INVALID_BODY: Row(Answer.STOP, "correct the named setting in bridgeData.yaml"),
        "BadRequest": Row(Answer.STOP, "check models_to_load and dreamer_name: see the message"),
        "InvalidPriorityUsername": Row(
            Answer.STOP, "write priority_usernames with their number, such as db0#1"
        ),
        "ProfaneWorkerName": Row(Answer.STOP, _OTHER_NAME),
        "ProfaneBridgeAgent": Row(Answer.STOP, "change bridge_agent"),
        "PolymorphicNameConflict": Row(
            Answer.STOP, f"{_OTHER_NAME}: a text worker or an alchemist has this one"
        ),
        "InvalidAPIKey": Row(Answer.STOP, _WRONG_KEY),
        "AnonForbiddenWorker": Row(
            Answer.STOP, "register an account at the horde and put its key into api_key"
        ),
        "WrongCredentials": Row(Answer.STOP, f"{_OTHER_NAME}: somebody else owns this one"),
        "WorkerMaintenance": Row(
            Answer.HOLD, "end the maintenance at the horde's website when you are ready", 15
        ),
        "WorkerFlaggedMaintenance": Row(Answer.STOP, _ASK_MODERATORS),
        "TooManyWorkers": Row(Answer.STOP, _FEWER_WORKERS),
        "TooManyWorkersTrusted": Row(Answer.STOP, _FEWER_WORKERS),
        "TooManySameIPs": Row(Answer.STOP, _FEWER_WORKERS),
        "WorkerInviteOnly": Row(Answer.STOP, f"{_ASK_MODERATORS} for an invitation"),
        "TimeoutIP": Row(Answer.HOLD, "wait; the horde shut this address out for a while", 300),
        "UnsafeIP": Row(Answer.STOP, f"leave the VPN, or {_ASK_MODERATORS}"),
        "TooManyNewIPs": Row(Answer.HOLD, "wait; the horde is still checking new addresses", 300),
        "DeletedUser": Row(Answer.STOP, "use another account: this one is being deleted"),
        "HTTP401": Row(Answer.STOP, _WRONG_KEY),
        "HTTP403": Row(Answer.STOP, _SEE_MESSAGE),
    }
)

SUBMIT: Mapping[str, Row] = MappingProxyType(
    {
        INVALID_BODY: Row(
            Answer.GIVE_UP, "report this: the worker sent a malformed result", fate=JobFate.OPEN
        ),
        "DuplicateGen": Row(
            Answer.GIVE_UP,
            "nothing to do: the horde had this result already",
            fate=JobFate.DELIVERED,
        ),
        "AbortedGen": Row(
            Answer.GIVE_UP, "took too long: lower max_power, max_batch or queue_size if this recurs"
        ),
        # The one known cause, too many gen_metadata, is found after the result was stored.
        "BadRequest": Row(
            Answer.GIVE_UP,
            "report this: the horde took the result and complained",
            fate=JobFate.DELIVERED,
        ),
        "WrongCredentials": Row(
            Answer.GIVE_UP, "use the api_key that this worker's name belongs to"
        ),
        "InvalidJobID": Row(
            Answer.GIVE_UP, "nothing to do: the request expired or its sender cancelled it"
        ),
    }
)

# find_user answers 404 to a key that nobody has.
ACCOUNT: Mapping[str, Row] = MappingProxyType(
    {
        "UserNotFound": Row(Answer.STOP, _WRONG_KEY),
        "HTTP401": Row(Answer.STOP, _WRONG_KEY),
        "HTTP403": Row(Answer.STOP, _SEE_MESSAGE),
    }
)

_ANY_OTHER = Row(Answer.GIVE_UP, "")


def refusal(rows: Mapping[str, Row], rc: str, status: int, message: str) -> HordeError:
    """The error to raise for a 4xx answer to the endpoint that `rows` is about."""
    row = rows.get(rc) or rows.get(f"HTTP{status}", _ANY_OTHER)
    match row.answer:
        case Answer.STOP:
            return NotAllowed(rc, message, row.remedy)
        case Answer.HOLD:
            return HordeOnHold(rc, message, row.remedy, row.wait_seconds)
        case Answer.GIVE_UP:
            return HordeRefused(rc, status, message, remedy=row.remedy, fate=row.fate)

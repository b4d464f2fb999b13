"""What each refusal of the horde means for the worker: one table per endpoint, one row per answer.

A row's name is the return code (`rc`) of an answer, or its HTTP status where it has none. An rc
without a row is judged by its status. docs/answers.md holds the same tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from worker.command_line import LAUNCHER, as_typed
from worker.errors import (
    HordeError,
    HordeOnHold,
    HordeRefused,
    HordeUnreachable,
    JobFate,
    NotAllowed,
    UploadRefused,
)


class Answer(Enum):
    """What the worker does about a refusal."""

    STOP = "stops"
    HOLD = "goes on asking, slowly"
    RETRY = "asks again, after longer and longer waits"
    GIVE_UP = "goes on without it"
    FAULT = "faults this image, so that another worker makes it"


@dataclass(frozen=True, slots=True)
class Row:
    """`remedy` is told to the owner.

    `wait_seconds` counts for HOLD, `fate` for GIVE_UP, and `may_have_worked` for RETRY.
    """

    status: int
    answer: Answer
    remedy: str
    wait_seconds: float = 0.0
    fate: JobFate = JobFate.OVER
    may_have_worked: bool = False


Rows = Mapping[str, Row]

# What we call answers that have no rc.
INVALID_BODY = "InvalidBody"  # 400: the server's check of fields said no
UNREADABLE_BODY = "UnreadableBody"  # 400: what came was no JSON
NOWHERE = "Nowhere"  # no answer: the address of an upload is none that may be asked

END_MAINTENANCE = f"end it with {LAUNCHER} worker --maintenance off"
_WRONG_KEY = "put the key of your account into api_key; a shared key can't run a worker"
_ASK_MODERATORS = "ask the horde's moderators (the link is on its website)"
_FEWER_WORKERS = "retire a worker at the horde's website, or use the name of one you have"
_REPORT = f"{LAUNCHER} report writes what helps us to mend it"
_OTHER_NAME = "choose another dreamer_name"
_NOT_OURS = "use the api_key that this worker's name belongs to"
_SEE_MESSAGE = "see the message; the horde's moderators know more"
_OTHER_HORDE = "check horde_url: no horde that this worker knows answers like this"
_WAIT = "wait: the horde, or what stands before it, has a problem of its own"

_OF_ANY_SERVER: Rows = MappingProxyType(
    {
        "HTTP3xx": Row(302, Answer.RETRY, "check horde_url: redirects are not followed"),
        "HTTP408": Row(408, Answer.RETRY, "wait: the connection is slow"),
        "HTTP429": Row(429, Answer.RETRY, "wait: too many calls came from this address"),
        "HTTP5xx": Row(500, Answer.RETRY, _WAIT, may_have_worked=True),
    }
)

_OF_ANY_HORDE: Rows = MappingProxyType(
    {
        **_OF_ANY_SERVER,
        UNREADABLE_BODY: Row(400, Answer.RETRY, "look for a proxy that spoils requests"),
        "HTTP4xx": Row(404, Answer.GIVE_UP, _OTHER_HORDE),
    }
)

POP: Rows = MappingProxyType(
    {
        INVALID_BODY: Row(400, Answer.STOP, "correct the named setting in bridgeData.yaml"),
        "BadRequest": Row(
            400,
            Answer.STOP,
            "see the message: custom_models need the customizer role, which the horde's moderators"
            " give; else check models_to_load and dreamer_name",
        ),
        "InvalidPriorityUsername": Row(
            400, Answer.STOP, "write priority_usernames with their number, such as db0#1"
        ),
        "ProfaneWorkerName": Row(400, Answer.STOP, _OTHER_NAME),
        "ProfaneBridgeAgent": Row(400, Answer.STOP, "change bridge_agent"),
        "PolymorphicNameConflict": Row(
            400, Answer.STOP, f"{_OTHER_NAME}: a text worker or an alchemist has this one"
        ),
        "InvalidAPIKey": Row(401, Answer.STOP, _WRONG_KEY),
        "AnonForbiddenWorker": Row(
            403, Answer.STOP, "register an account at the horde and put its key into api_key"
        ),
        "WrongCredentials": Row(403, Answer.STOP, f"{_OTHER_NAME}: somebody else owns this one"),
        "WorkerMaintenance": Row(
            403,
            Answer.HOLD,
            f"{END_MAINTENANCE}; your own jobs come meanwhile",
            15,
        ),
        "WorkerFlaggedMaintenance": Row(403, Answer.STOP, _ASK_MODERATORS),
        "TooManyWorkers": Row(403, Answer.STOP, _FEWER_WORKERS),
        "TooManyWorkersTrusted": Row(403, Answer.STOP, _FEWER_WORKERS),
        "TooManySameIPs": Row(403, Answer.STOP, _FEWER_WORKERS),
        "WorkerInviteOnly": Row(403, Answer.STOP, f"{_ASK_MODERATORS} for an invitation"),
        "TimeoutIP": Row(
            403, Answer.HOLD, "wait; the horde shut this address out for a while", 300
        ),
        "UnsafeIP": Row(403, Answer.STOP, f"leave the VPN, or {_ASK_MODERATORS}"),
        "TooManyNewIPs": Row(
            403, Answer.HOLD, "wait; the horde is still checking new addresses", 300
        ),
        "DeletedUser": Row(403, Answer.STOP, "use another account: this one is being deleted"),
        "HTTP401": Row(401, Answer.STOP, _WRONG_KEY),
        "HTTP403": Row(403, Answer.STOP, _SEE_MESSAGE),
        **_OF_ANY_HORDE,
    }
)

SUBMIT: Rows = MappingProxyType(
    {
        INVALID_BODY: Row(
            400,
            Answer.GIVE_UP,
            f"a bug of ours: the worker sent a malformed result; {_REPORT}",
            fate=JobFate.OPEN,
        ),
        "DuplicateGen": Row(
            400,
            Answer.GIVE_UP,
            "nothing to do: the horde had this result already",
            fate=JobFate.DELIVERED,
        ),
        "AbortedGen": Row(
            400,
            Answer.GIVE_UP,
            "took too long: lower max_power, max_batch or queue_size if this recurs",
        ),
        # The one known cause, too many gen_metadata, is found after the result was stored.
        "BadRequest": Row(
            400,
            Answer.GIVE_UP,
            f"a bug of ours: the horde took the result and complained; {_REPORT}",
            fate=JobFate.DELIVERED,
        ),
        "WrongCredentials": Row(403, Answer.GIVE_UP, _NOT_OURS),
        "InvalidJobID": Row(
            404, Answer.GIVE_UP, "nothing to do: the request is gone, most often because it expired"
        ),
        **_OF_ANY_HORDE,
        "HTTP4xx": Row(404, Answer.GIVE_UP, _SEE_MESSAGE, fate=JobFate.OPEN),
        # The server answers so to a key that it does not know, too.
        "HTTP5xx": Row(
            500,
            Answer.RETRY,
            f"{_WAIT}; where it goes on, check that api_key is still valid",
            may_have_worked=True,
        ),
    }
)

UPLOAD: Rows = MappingProxyType(
    {
        NOWHERE: Row(
            0, Answer.FAULT, "tell the horde's moderators: its address for a picture is bad"
        ),
        **_OF_ANY_SERVER,
        "HTTP4xx": Row(
            403, Answer.FAULT, "nothing to do, if it is rare: the address lives for half an hour"
        ),
        "HTTP3xx": Row(302, Answer.RETRY, "wait: redirects of an upload are not followed"),
    }
)

# find_user answers 404 to a key that nobody has, workers/name to a name.
ACCOUNT: Rows = MappingProxyType(
    {
        "UserNotFound": Row(404, Answer.STOP, _WRONG_KEY),
        "WorkerNotFound": Row(404, Answer.GIVE_UP, "nothing to do: the name is free"),
        "HTTP401": Row(401, Answer.STOP, _WRONG_KEY),
        "HTTP403": Row(403, Answer.STOP, _SEE_MESSAGE),
        **_OF_ANY_HORDE,
    }
)

WORKER: Rows = MappingProxyType(
    {
        INVALID_BODY: Row(400, Answer.GIVE_UP, "correct what the message names"),
        "ProfaneWorkerInfo": Row(400, Answer.GIVE_UP, "choose other words for --info"),
        "InvalidAPIKey": Row(401, Answer.STOP, _WRONG_KEY),
        "NotOwner": Row(403, Answer.STOP, _NOT_OURS),
        "NotModerator": Row(403, Answer.STOP, _NOT_OURS),
        "WorkerNotFound": Row(404, Answer.GIVE_UP, "start the worker once: its first pop makes it"),
        "TeamNotFound": Row(404, Answer.GIVE_UP, "look for the team's name at the horde's website"),
        "HTTP401": Row(401, Answer.STOP, _WRONG_KEY),
        "HTTP403": Row(403, Answer.STOP, _SEE_MESSAGE),
        **_OF_ANY_HORDE,
    }
)

PUBLIC: Rows = _OF_ANY_HORDE

BY_ENDPOINT: Mapping[str, Rows] = MappingProxyType(
    {
        "generate/pop": POP,
        "generate/submit": SUBMIT,
        "a picture's upload": UPLOAD,
        "find_user, workers/name": ACCOUNT,
        "PUT workers (your command)": WORKER,
        "status/heartbeat, status/models, teams": PUBLIC,
    }
)


def refusal(
    rows: Rows, rc: str, status: int, message: str, retry_after_seconds: float | None = None
) -> HordeError:
    """The error to raise for an answer of 300 and above to the endpoint that `rows` is about."""
    row = _row(rows, rc, status)
    match row.answer:
        case Answer.STOP:
            return NotAllowed(rc, message, row.remedy)
        case Answer.HOLD:
            return HordeOnHold(rc, message, as_typed(row.remedy), row.wait_seconds)
        case Answer.RETRY:
            return HordeUnreachable(
                f"{rc}: {message}; {row.remedy}",
                retry_after_seconds,
                may_have_worked=row.may_have_worked,
                was_answered=True,
            )
        case Answer.GIVE_UP:
            return HordeRefused(rc, status, message, remedy=row.remedy, fate=row.fate)
        case Answer.FAULT:
            return UploadRefused(rc, status, message, remedy=row.remedy, fate=JobFate.OPEN)


def _row(rows: Rows, rc: str, status: int) -> Row:
    """The first that there is; a status that HTTP does not know is a server's error."""
    names = (rc, f"HTTP{status}", f"HTTP{status // 100}xx", "HTTP5xx")
    return next(rows[name] for name in names if name in rows)

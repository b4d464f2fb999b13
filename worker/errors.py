"""Everything the worker raises on purpose.

WorkerError
├── ConfigError               bridgeData.yaml can't be used; the owner has to change it
├── UsageError                an option of a command can't be used
├── StateTaken                another worker runs with the same state folder
├── NothingToServe            none of the configured models has a file that can be used
├── DocumentMissing           a list of the horde's can't be had, and there is no earlier copy
├── UnknownModel              a command names a model that nobody knows, or that it can't be done to
├── JudgeUnusable             pictures can't be judged as configured, so none may leave
├── CantServeNow              a kind of work can't be done for a while; it is tried again
├── EngineUnusable            no engine process can be had: ComfyUI, torch or the device is at fault
└── HordeError                a call to the horde or its storage did not end as hoped
    ├── HordeUnreachable      no answer, or none that makes sense: the same call may succeed later
    ├── HordeOnHold           the horde gives this worker nothing for now: keep asking, slowly
    ├── HordeRefused          a clear no to this one call: asking again will not help
    │   └── UploadRefused     a picture can't be put where it should; its job is still open
    ├── NotAllowed            this worker may not serve as it is set up: stop and tell the owner
    └── UnusableJob           jobs were handed out in a shape we can't serve: fault their ids

PortTaken (OSError)           another program listens on the local horde's port
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path


class WorkerError(Exception):
    """Base of every error that the worker raises."""


class ConfigError(WorkerError):
    """The configuration file can't be used.

    `problems` holds one line each, with the key, its value and what to write instead.
    """

    def __init__(self, problems: tuple[str, ...]):
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(WorkerError):
    """An option of a command can't be used; the message names it and says what to write."""


class StateTaken(WorkerError):
    """Two workers would answer for each other's jobs. `holder` is the other one's process; None
    where it is none of those that can be seen from here."""

    def __init__(self, folder: Path, holder: int | None):
        process = f"process {holder}" if holder else "a worker, perhaps in another container,"
        super().__init__(
            f"{process} runs with {folder} already; stop it with ./horde-bridge.sh drain, "
            "or give this one another folder with --home"
        )
        self.holder = holder


class NothingToServe(WorkerError):
    """Not one model to offer; the message says why for each."""


class UnknownModel(WorkerError):
    """A model of that name is not there to do this to; the message has a line for each."""


class DocumentMissing(WorkerError):
    """No site has the document, and it was never had before; the message says why for each."""


class EngineUnusable(WorkerError):
    """The engine process did not start, again and again."""


class JudgeUnusable(WorkerError):
    """A judge that is required is not installed, or its process did not start."""


class CantServeNow(WorkerError):
    """Nothing of a kind of work can be done at the moment; the message has the remedy."""


class HordeError(WorkerError):
    """A call to the horde, or to the storage it names, failed."""


class HordeUnreachable(HordeError):
    """No answer, a broken one, a 5xx or a rate limit.

    `retry_after_seconds` is the wait that the server asked for, None where it named none.
    `may_have_worked`: the server may have done what it was asked, and only its answer is lost.
    `was_answered`: an error was answered, of the server or of what stands before it.
    """

    def __init__(
        self,
        message: str,
        retry_after_seconds: float | None = None,
        *,
        may_have_worked: bool = False,
        was_answered: bool = False,
    ):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.may_have_worked = may_have_worked
        self.was_answered = was_answered


class HordeOnHold(HordeError):
    """Maintenance or a time-out of this address. Ask again after `retry_after_seconds`."""

    def __init__(self, rc: str, message: str, remedy: str, retry_after_seconds: float):
        super().__init__(f"{rc}: {message}")
        self.rc = rc
        self.remedy = remedy
        self.retry_after_seconds = retry_after_seconds


class JobFate(Enum):
    """What a refused call means for the job that it was about."""

    OVER = "the job is no longer ours"
    DELIVERED = "the horde has the result, from this call or an earlier one"
    OPEN = "the job is still open, and must be faulted"


class HordeRefused(HordeError):
    """The horde said no to this call and will say no again. The message holds the remedy."""

    def __init__(self, rc: str, status: int, message: str, *, remedy: str, fate: JobFate):
        super().__init__(f"{rc}: {message}; {remedy}")
        self.rc = rc
        self.status = status
        self.remedy = remedy
        self.fate = fate


class UploadRefused(HordeRefused):
    """A picture can't be put where the horde said."""


class NotAllowed(HordeError):
    """The horde will not let this worker serve until `remedy` is done."""

    def __init__(self, rc: str, message: str, remedy: str):
        super().__init__(f"{rc}: {message}")
        self.rc = rc
        self.remedy = remedy


class UnusableJob(HordeError):
    """A pop named `ids` and the rest of it is broken. They are ours to fault, or they time out."""

    def __init__(self, ids: tuple[str, ...], message: str):
        super().__init__(message)
        self.ids = ids


class PortTaken(OSError):
    def __init__(self, port: int, reason: str):
        super().__init__(f"the sandbox cannot listen on 127.0.0.1:{port}: {reason}")

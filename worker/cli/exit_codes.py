"""What the process tells its caller by its exit code, and which error means which."""

from __future__ import annotations

import errno
from enum import IntEnum

from hordelib.errors import RuntimeMissing
from worker.errors import (
    ConfigError,
    DocumentMissing,
    EngineUnusable,
    HordeUnreachable,
    JudgeUnusable,
    NotAllowed,
    NothingToServe,
    PortTaken,
    StateTaken,
    UnknownModel,
    UsageError,
)


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1  # a check or a demo job failed, or a bug of ours
    USAGE = 2  # the command line or bridgeData.yaml
    NOT_ALLOWED = 3  # the horde won't have this worker: key, name, ban
    UNREACHABLE = 4  # the horde, or its model reference, did not answer
    NO_MODEL = 5  # no model file can be used
    NO_ENGINE = 6  # ComfyUI, torch or the device does not work
    DISK = 7  # full, read-only, or not ours to write
    NO_JUDGE = 8  # pictures can't be judged as bridgeData.yaml wants it
    TAKEN = 9  # another worker runs with this state folder
    PAUSED = 10  # of `status` alone
    HINDERED = 11  # of `status` alone: something keeps the worker from jobs
    INTERRUPTED = 130  # a second Ctrl-C, or the first one to another command than run


_ERRORS: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ConfigError, ExitCode.USAGE),
    (NotAllowed, ExitCode.NOT_ALLOWED),
    (HordeUnreachable, ExitCode.UNREACHABLE),
    (DocumentMissing, ExitCode.UNREACHABLE),
    (NothingToServe, ExitCode.NO_MODEL),
    (EngineUnusable, ExitCode.NO_ENGINE),
    (RuntimeMissing, ExitCode.NO_ENGINE),
    (JudgeUnusable, ExitCode.NO_JUDGE),
    (UnknownModel, ExitCode.USAGE),
    (UsageError, ExitCode.USAGE),
    (PortTaken, ExitCode.USAGE),
    (StateTaken, ExitCode.TAKEN),
)
_FULL, _CLOSED = "free some disk space", "make it writable for you, or choose another folder"
_REMEDIES = {
    getattr(errno, name): remedy
    for name, remedy in {
        "ENOSPC": _FULL,
        "EDQUOT": _FULL,
        "EFBIG": _FULL,
        "EROFS": _CLOSED,
        "EACCES": _CLOSED,
        "EPERM": _CLOSED,
        "EIO": "look whether the disk is sound",
    }.items()
    if hasattr(errno, name)
}
"""For errors of the disk."""


def exit_code(error: Exception) -> ExitCode:
    """By what the system says of a file, else the first row that fits; FAILED for any other."""
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return ExitCode.DISK
    return next((code for kind, code in _ERRORS if isinstance(error, kind)), ExitCode.FAILED)


def line_of(error: Exception) -> str:
    """What its owner reads of it."""
    if isinstance(error, ConfigError):
        return "bridgeData.yaml can't be used:\n  " + "\n  ".join(error.problems)
    if isinstance(error, NotAllowed):
        return f"the horde won't have this worker: {error}. Remedy: {error.remedy}"
    if isinstance(error, OSError) and error.strerror:
        told = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        remedy = _REMEDIES.get(error.errno or 0)
        return f"{told}; {remedy}" if remedy else told
    return str(error)

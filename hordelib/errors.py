"""Everything hordelib raises on purpose.

HordelibError
├── JobError               this job cannot be done; the next one may well succeed
│   ├── InvalidParams      a field of the job has a value that can't be
│   ├── NotServed          the job asks for something that this version does not do
│   ├── BadSource          a source image or mask that can't be used
│   ├── DownloadFailed     a file that the job needs could not be had in time
│   │   └── DownloadRefused   and will not be had by asking again soon
│   ├── BaselineMismatch   a LoRA or textual inversion that is made for another family of models
│   ├── ModelMissing       the job names a model that is not on disk
│   ├── ModelBroken        the model's file is there and cannot be used
│   ├── AuxiliaryBroken    a file that works beside the model can't be used
│   ├── OutOfMemory        the job does not fit into the device's memory
│   ├── JudgeFailed        nobody can say whether a finished picture may leave: it does not
│   ├── GenerationFailed   ComfyUI raised while it ran the graph
│   │   └── NotNumbers     what a part of the job gave are not numbers
│   └── Cancelled          somebody asked for the job to stop
├── RuntimeMissing         ComfyUI is not installed where it was looked for
└── EngineError            the process can't be trusted any more: start a new one
    └── DeviceFault        the card failed, whatever it was at
        └── DeviceUnusable    and fails again until its owner has done something
"""

from __future__ import annotations

from pathlib import Path
from reprlib import Repr


class HordelibError(Exception):
    """Base of every error that hordelib raises."""


class JobError(HordelibError):
    """One job failed; the engine is as good as before."""


class _Shown(Repr):
    """Values of any size and depth in about a hundred characters, at a cost that is bounded."""

    def repr_int(self, x: int, level: int) -> str:
        digits = int(x.bit_length() * 0.30103) + 1  # log10(2); Python writes no more than 4300
        return repr(x) if digits <= _MOST_DIGITS else f"a number of about {digits} digits"


_MOST_DIGITS, _MOST_SHOWN = 30, 120
_SHOWN = _Shown()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 2, 80, 80


def shown(value: object) -> str:
    """A stranger's value for one line of a message: as Python writes it, and cut.

    >>> shown("a" * 1000)[:12], len(shown("a" * 1000))
    ("'aaaaaaaaaaa", 80)
    """
    return _SHOWN.repr(value)[:_MOST_SHOWN]


class InvalidParams(JobError):
    """A field of the job has a value that it can't have. The message shows the value cut short.

    >>> str(InvalidParams("width", 500, "a multiple of 64"))
    'width=500: expected a multiple of 64'
    """

    def __init__(self, field: str, value: object, expected: str):
        super().__init__(f"{field}={shown(value)}: expected {expected}")
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (type(self), str(self), {"field": self.field})


class NotServed(JobError):
    """The job is fine, and of a kind that is not served."""

    def __init__(self, field: str):
        super().__init__(f"asks for {field}, which this worker does not serve")
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.field,)


class BadSource(JobError):
    """A source image or mask that can't be fetched, read, or used; the message says which."""


class DownloadFailed(JobError):
    """A file that the job names could not be had; the message says from where, and why."""


class DownloadRefused(DownloadFailed):
    """The site's last word on a file, or a file that no job may have.

    Worth asking again after `valid_seconds`; 0 means that the answer costs nothing and is not kept.
    """

    def __init__(self, message: str, valid_seconds: float = 0.0):
        super().__init__(message)
        self.valid_seconds = valid_seconds


class DownloadStopped(DownloadFailed):
    """Nobody wants the file at the moment; what has come of it stays."""


class DiskTrouble(DownloadFailed):
    """The disk has no room for a file, or can't be written, which its owner can mend."""


class BaselineMismatch(JobError):
    """A LoRA or textual inversion that is made for another family than the job's model."""


class ModelMissing(JobError):
    """No file on disk for the model that the job names."""


class ModelBroken(JobError):
    """A model's file that ComfyUI can't read, or that lacks a part the job needs."""


class AuxiliaryBroken(JobError):
    """A ControlNet, an annotator or a post-processor whose file is broken or gone.

    No job that needs `path` can be made until its owner has mended it. The model is none the worse.
    """

    def __init__(self, path: Path, message: str):
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, str(self))


class OutOfMemory(JobError):
    """The device ran out of memory, even with every idle model gone."""


class JudgeFailed(JobError):
    """A finished picture that could not be judged; that says nothing about the picture."""


class GenerationFailed(JobError):
    """A node of the graph raised; the message names the node."""


class NotNumbers(GenerationFailed):
    """A part of the job gave values of which no picture can be made.

    `part` says which.

    >>> str(NotNumbers("decode: the VAE"))
    'decode: the VAE gives values that are not numbers'
    """

    def __init__(self, part: str):
        super().__init__(f"{part} gives values that are not numbers")
        self.part = part

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (type(self), str(self), dict(self.__dict__))


class Cancelled(JobError):
    """The job was stopped on request before its pictures were done."""


class RuntimeMissing(HordelibError):
    """ComfyUI is not there, or another version than this one was written for."""


class EngineError(HordelibError):
    """The device or ComfyUI's state is unknown; only a new process helps."""


class DeviceFault(EngineError):
    """The card failed, which says nothing of the job, its model or its LoRAs."""


class DeviceUnusable(DeviceFault):
    """No new process helps either, until somebody follows the message's remedy."""


def _rebuilt(kind: type[HordelibError], message: str, fields: dict[str, object]) -> HordelibError:
    """Unpickles an error whose constructor takes more than the message."""
    error = kind.__new__(kind, message)
    error.__dict__.update(fields)
    return error

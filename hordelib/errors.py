"""Everything hordelib raises on purpose.

HordelibError
├── JobError               this job cannot be done; the next one may well succeed
│   ├── InvalidParams      a field of the job has a value that can't be
│   ├── NotServed          the job asks for something that this version does not do
│   ├── ModelMissing       the job names a model that is not on disk
│   ├── ModelBroken        the model's file is there and cannot be used
│   ├── OutOfMemory        the job does not fit into the device's memory
│   ├── GenerationFailed   ComfyUI raised while it ran the graph
│   └── Cancelled          somebody asked for the job to stop
├── RuntimeMissing         ComfyUI is not installed where it was looked for
└── EngineError            the process can't be trusted any more: start a new one
"""


class HordelibError(Exception):
    """Base of every error that hordelib raises."""


class JobError(HordelibError):
    """One job failed; the engine is as good as before."""


class InvalidParams(JobError):
    """A field of the job has a value that it can't have.

    >>> str(InvalidParams("width", 500, "a multiple of 64"))
    'width=500: expected a multiple of 64'
    """

    def __init__(self, field: str, value: object, expected: str):
        super().__init__(f"{field}={value!r}: expected {expected}")
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


class ModelMissing(JobError):
    """No file on disk for the model that the job names."""


class ModelBroken(JobError):
    """A model's file that ComfyUI can't read, or that lacks a part the job needs."""


class OutOfMemory(JobError):
    """The device ran out of memory, even with every idle model gone."""


class GenerationFailed(JobError):
    """A node of the graph raised; the message names the node."""


class Cancelled(JobError):
    """The job was stopped on request before its pictures were done."""


class RuntimeMissing(HordelibError):
    """ComfyUI is not there, or another version than this one was written for."""


class EngineError(HordelibError):
    """The device or ComfyUI's state is unknown; only a new process helps."""


def _rebuilt(kind: type[HordelibError], message: str, fields: dict[str, object]) -> HordelibError:
    """Unpickles an error whose constructor takes more than the message."""
    error = kind.__new__(kind, message)
    error.__dict__.update(fields)
    return error

"""Everything the sandbox refuses, in the words of the horde's API.

SandboxError
├── Refusal         {"message", "rc"} with the status that the rc has on the server
├── InvalidInput    {"errors": {field: why}, "message"}, 400: the schema was violated
├── NotJson         {"message"}, 400
├── TooFast         {"message"}, 429 with Retry-After
└── ServerBug       {"message"}, 500: where the real server trips over itself
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

# rc → (HTTP status, message). Workers and clients decide by rc and status; the texts are ours.
REFUSALS: Mapping[str, tuple[int, str]] = {
    "InvalidAPIKey": (401, "No user has this API key."),
    "AnonForbiddenWorker": (403, "Anonymous users may not run workers."),
    "WrongCredentials": (403, "This worker belongs to another user."),
    "WorkerMaintenance": (403, "{message}"),
    "WorkerFlaggedMaintenance": (403, "Your user has been flagged for suspicious activity."),
    "TooManyWorkers": (403, "Untrusted users can only have up to 3 workers."),
    "TooManyWorkersTrusted": (403, "Trusted users can only have up to 20 workers."),
    "PolymorphicNameConflict": (400, "The name {name!r} belongs to another type of worker."),
    "SourceImageResolutionExceeded": (400, "The source image has more than 255 tiles."),
    "SourceImageUrlInvalid": (400, "Image validation failed. Url does not contain a valid image."),
    "WorkerInviteOnly": (403, "New workers are accepted by invitation only."),
    "TimeoutIP": (403, "Your address has been put into timeout for {seconds} more seconds."),
    "NotOwner": (403, "Only its owner may change a worker."),
    "NotModerator": (403, "Only a moderator may do this to the worker."),
    "BadRequest": (400, "{message}"),
    "InvalidPriorityUsername": (400, "Priority usernames have the form alias#number."),
    "DuplicateGen": (400, "Generation {id} was already submitted."),
    "AbortedGen": (400, "Generation {id} was aborted: it has to complete within {ttl} seconds."),
    "InvalidJobID": (404, "There is no generation {id}."),
    "RequestNotFound": (404, "There is no request {id}."),
    "WorkerNotFound": (404, "There is no worker {id}."),
    "TeamNotFound": (404, "There is no team {id}."),
    "NoWorkerModSelected": (400, "Nothing to change was named."),
    "WorkerNameAlreadyExists": (400, "There is a worker named {name} already."),
    "MaintenanceMode": (400, "The horde is in maintenance mode."),
    "TooManyLoras": (400, "A request can use up to 5 LoRAs."),
    "BadCFGDecimals": (400, "cfg_scale has at most 2 decimal places."),
    "TooManyUpscalers": (400, "A request can use one upscaler."),
    "ControlNetSourceMissing": (400, "ControlNet needs a source image."),
    "ControlNetMismatch": (400, "ControlNet does not work with the requested model."),
    "InvalidTransparencyModel": (400, "The requested model makes no transparent pictures."),
    "SamplerKnobInapplicable": (400, "The sampler {sampler} has no {option}."),
    "SamplerKnobOutOfRange": (400, "{option} of {sampler} is outside of its range."),
    "SamplerSolverTypeUnsupported": (400, "The sampler {sampler} has no such solver type."),
    "SamplerSchedulerMismatch": (400, "dpmpp_3m_sde does not work with the schedule normal."),
    "SchedulerBaselineMismatch": (400, "The schedule does not exist for the requested model."),
    "FlowShiftInapplicable": (400, "The requested models have no flow_shift."),
    "FlowShiftOutOfRange": (400, "flow_shift is a number from 0 to 100."),
    "SourceMaskUnnecessary": (400, "A source_mask needs a source_image."),
    "InpaintingMissingMask": (400, "Inpainting needs a mask or an alpha channel."),
    "ImageValidationFailed": (400, "The source image is neither base64 of an image nor its URL."),
    "RequiresTrust": (400, "Only trusted users may disable batching."),
    "KudosUpfront": (403, "This request needs {kudos} kudos up front."),
    "TooManyPrompts": (429, "{open} parallel images exceed the limit of {limit}."),
}


class SandboxError(Exception):
    """A call that is answered with an error."""

    status: int = HTTPStatus.BAD_REQUEST
    rc: str | None = None

    def body(self) -> dict[str, object]:
        return {"message": str(self)}


class Refusal(SandboxError):
    """A rule of the horde said no; `rc` is a key of REFUSALS."""

    def __init__(self, rc: str, **details: object):
        self.status, message = REFUSALS[rc]
        super().__init__(message.format(**details))
        self.rc = rc

    def body(self) -> dict[str, object]:
        return {"message": str(self), "rc": self.rc}


class InvalidInput(SandboxError):
    """Body or headers do not fit the schema. `errors` names each field and what is wrong."""

    def __init__(self, errors: Mapping[str, str]):
        super().__init__("Input payload validation failed")
        self.errors = dict(errors)

    def body(self) -> dict[str, object]:
        return {"errors": self.errors, "message": str(self)}


class NotJson(SandboxError):
    def __init__(self) -> None:
        super().__init__("The body is not JSON.")


class TooFast(SandboxError):
    """`headers` carry Retry-After and the X-Ratelimit family."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, limit: str, headers: Mapping[str, str]):
        super().__init__(limit)
        self.headers = dict(headers)


class ServerBug(SandboxError):
    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self) -> None:
        super().__init__("Internal Server Error")

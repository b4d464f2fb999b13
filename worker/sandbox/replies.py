"""The JSON of jobs and requests. Shapes are the server's, down to keys that never carry a value."""

from __future__ import annotations

import math
from base64 import b64encode
from email.utils import formatdate

from worker.sandbox.dispatch import Handout, Nothing
from worker.sandbox.objects import Bucket, ObjectStore
from worker.sandbox.records import Generation, Message, Records, Request, State
from worker.sandbox.rules.capabilities import BridgeAgent

Json = dict[str, object]

# Parameters that reach a worker under another name, or not at all.
_OWN_KEYS = {"n", "steps", "seed", "seed_variation"}
_EMPTY_PAYLOAD: Json = {
    "ddim_steps": 30, "n_iter": 1, "image_is_control": False, "return_control_map": False,
    "sampler_name": "k_euler_a", "cfg_scale": 7.5, "height": 512, "width": 512, "karras": False,
    "tiling": False, "hires_fix": False, "transparent": False,
}  # fmt: skip


class Links:
    """Absolute presigned URLs as the caller can reach them."""

    def __init__(self, store: ObjectStore, origin: str):
        self._store = store
        self._origin = origin

    def get(self, bucket: Bucket, name: str, issued_at: float | None = None) -> str:
        return self._origin + self._store.presign("GET", bucket, name, issued_at=issued_at)

    def put(self, name: str) -> str:
        return self._origin + self._store.presign("PUT", "transient", name)

    def content(self, bucket: Bucket, name: str) -> str | None:
        """The object itself in base64, for callers that don't use links."""
        stored = self._store.get(bucket, name)
        return None if stored is None else b64encode(stored.data).decode()


def empty_pop(nothing: Nothing, messages: list[Message]) -> Json:
    """Looks like a job but for its ids: payload is full of defaults."""
    return {
        "payload": _EMPTY_PAYLOAD,
        "id": None,
        "ids": [],
        "messages": [_message(row) for row in messages],
        "ttl": None,
        "skipped": nothing.skipped,
        "model": None,
        "source_image": None,
        "source_processing": "img2img",
        "source_mask": None,
        "extra_source_images": None,
        "r2_upload": None,
        "r2_uploads": None,
    }


def job(handout: Handout, agent: BridgeAgent, links: Links, messages: list[Message]) -> Json:
    """A pop that hands something out."""
    uploads = [links.put(row.object_name) for row in handout.generations]
    ids = [row.id for row in handout.generations]
    return {
        "payload": _payload(handout, agent),
        "id": ids[0],
        "ids": ids,
        "messages": [_message(row) for row in messages],
        "ttl": handout.ttl_seconds,
        "skipped": {},
        "model": handout.model,
        **_sources(handout.request, agent, links),
        "r2_upload": uploads[0],
        "r2_uploads": uploads,
    }


def _payload(handout: Handout, agent: BridgeAgent) -> Json:
    body = handout.request.body
    given = body.params.model_dump(mode="json", exclude_none=True, exclude=_OWN_KEYS)
    payload: Json = {
        "prompt": body.prompt,
        "ddim_steps": body.params.effective_steps,
        "n_iter": len(handout.generations),
        "seed": str(handout.seed),
        **{name: value for name, value in given.items() if value != []},
    }
    if "scheduler" not in agent.features:
        payload.pop("scheduler", None)  # one of the two that `karras` says, too
    if body.censor_nsfw and not body.nsfw:
        payload["use_nsfw_censor"] = True
    return payload


def _sources(request: Request, agent: BridgeAgent, links: Links) -> Json:
    """Links signed when the client asked, or the pictures themselves for an old bridge."""
    linked = "r2_source" in agent.features

    def picture(name: str | None) -> str | None:
        if name is None:
            return None
        if not linked:
            return links.content("sources", name)
        return links.get("sources", name, request.created_at)

    extras = [
        {"image": picture(name), "strength": extra.strength}
        for name, extra in zip(
            request.sources.extras, request.body.extra_source_images, strict=True
        )
    ]
    return {
        "source_image": picture(request.sources.image),
        "source_processing": request.body.source_processing,
        "source_mask": picture(request.sources.mask),
        "extra_source_images": extras or None,
    }


def _message(message: Message) -> Json:
    return {
        "id": message.id,
        "message": message.text,
        "origin": message.origin,
        "expiry": formatdate(message.expires_at),
    }


def check(request: Request, records: Records, now: float, *, possible: bool) -> Json:
    return {
        "finished": request.count(State.ok),
        "processing": request.count(State.processing),
        "restarted": request.restarted,
        "waiting": request.waiting,
        "done": request.done,
        "faulted": request.faulted,
        "wait_time": _wait_seconds(request, records, now),
        "queue_position": _queue_position(request, records),
        "kudos": float(request.consumed_kudos),
        "is_possible": possible and not request.done,
    }


def status(request: Request, checked: Json, links: Links) -> Json:
    delivered = [row for row in request.generations if row.state is State.ok]
    return {
        "generations": [_generation(row, links) for row in delivered],
        "shared": request.body.shared,
        **checked,
    }


def _generation(generation: Generation, links: Links) -> Json:
    return {
        "img": _image(generation, links),
        "seed": str(generation.seed),
        "id": generation.id,
        "censored": generation.censored,
        "gen_metadata": [row.model_dump(exclude_none=True) for row in generation.gen_metadata],
        "worker_id": generation.worker.id,
        "worker_name": generation.worker.name,
        "model": generation.model,
        # Whatever the worker sent: the server forgets it.
        "state": "ok",
    }


def _image(generation: Generation, links: Links) -> str | None:
    name = generation.object_name
    if generation.image != "R2":
        return generation.image
    if generation.request.body.r2:
        return links.get("transient", name)
    return links.content("transient", name)


def _queue_position(request: Request, records: Records) -> int:
    waiting = records.open_requests()
    return waiting.index(request) + 1 if request in waiting else 0


def _wait_seconds(request: Request, records: Records, now: float) -> int:
    """What is ahead of the request at the speed of the workers online."""
    if request.done:
        return 0
    ahead = [row for row in records.open_requests() if row.created_at <= request.created_at]
    pixelsteps = sum(row.waiting * row.pixelsteps for row in ahead)
    pixelsteps += request.count(State.processing) * request.pixelsteps
    online = [row for row in records.workers.values() if row.online(now)]
    speed = sum(row.pixelsteps_per_second for row in online) or 1e6
    return math.ceil(pixelsteps / speed)

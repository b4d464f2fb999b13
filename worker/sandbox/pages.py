"""The JSON of workers, users, models and the horde as a whole, as far as the sandbox knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

from worker.sandbox.records import Account, Records, State, Worker
from worker.sandbox.replies import Json


class Cache:
    """An answer is made anew once it is older than `seconds`."""

    def __init__(self, clock: Callable[[], float], seconds: float):
        self._clock = clock
        self._seconds = seconds
        self._kept: dict[Hashable, tuple[float, Json]] = {}

    def get(self, key: Hashable, make: Callable[[], Json]) -> Json:
        made_at, answer = self._kept.get(key, (float("-inf"), {}))
        now = self._clock()
        if now - made_at >= self._seconds:
            answer = make()
            self._kept[key] = (now, answer)
        return answer


def worker(row: Worker, records: Records, now: float, *, private: bool) -> Json:
    """A worker's details; `private` adds what moderators alone may see."""
    offer, owner = row.offer, row.owner
    reply: Json = {
        "requests_fulfilled": row.fulfilled,
        "kudos_rewards": float(row.kudos_generated + row.kudos_uptime),
        "kudos_details": {
            "generated": row.kudos_generated or None,
            "uptime": row.kudos_uptime or None,
        },
        "performance": f"{row.pixelsteps_per_second / 1e6:.1f} megapixelsteps per second",
        "threads": offer.threads,
        "uptime": int(row.uptime_seconds),
        "maintenance_mode": row.maintenance is not None,
        "info": row.info or None,
        "nsfw": offer.nsfw,
        "trusted": owner.user.trusted,
        "flagged": owner.flagged,
        "uncompleted_jobs": row.uncompleted,
        "models": list(row.models),
        "team": {"name": records.teams.get(row.team), "id": row.team or None},
        "bridge_agent": offer.bridge_agent,
        "max_pixels": offer.max_pixels,
        "megapixelsteps_generated": round(row.pixelsteps / 1e6, 2),
        "img2img": offer.allow_img2img,
        "painting": offer.allow_painting,
        "post-processing": offer.allow_post_processing,
        "lora": offer.allow_lora,
        "controlnet": offer.allow_controlnet,
        "sdxl_controlnet": offer.allow_sdxl_controlnet,
        "type": "image",
        "name": row.name,
        "id": row.id,
        "online": row.online(now),
    }
    if private or owner.user.public_workers:
        reply["owner"] = owner.user.username
    if private:
        reply |= {
            "paused": False,
            "ipaddr": "127.0.0.1",
            "suspicious": row.suspicions,
            "messages": [],
        }
    return reply


def user(account: Account, records: Records) -> Json:
    workers = [row for row in records.workers.values() if row.owner is account]
    earned = sum(row.kudos_generated + row.kudos_uptime for row in workers)
    return {
        "username": account.user.username,
        "id": account.user.id,
        "kudos": float(account.kudos),
        "evaluating_kudos": float(account.evaluating_kudos),
        "concurrency": account.user.concurrency,
        "worker_invited": 0,
        "moderator": account.user.moderator,
        "kudos_details": {"accumulated": float(earned)},
        "worker_count": len(workers),
        "worker_ids": [row.id for row in workers],
        "trusted": account.user.trusted,
        "flagged": account.flagged,
        "suspicious": sum(row.suspicions for row in workers),
    }


def models(records: Records, now: float) -> list[Json]:
    """One row per model that an online worker offers or an open request names."""
    online = [row for row in records.workers.values() if row.online(now)]
    offered = {name for row in online for name in row.models}
    wanted = {name for row in records.open_requests() for name in row.body.models}
    return [_model(name, records, online) for name in sorted(offered | wanted)]


def _model(name: str, records: Records, online: list[Worker]) -> Json:
    serving = [row for row in online if name in row.models]
    asking = [row for row in records.open_requests() if name in row.body.models]
    speed = sum(row.pixelsteps_per_second for row in serving)
    queued = sum(row.waiting * row.pixelsteps for row in asking)
    return {
        "performance": round(speed / max(1, len(serving)), 1),
        "queued": float(queued),
        "jobs": float(sum(row.waiting for row in asking)),
        "eta": math.ceil(queued / speed) if speed else 0,
        "type": "image",
        "name": name,
        "count": len(serving),
    }


def performance(records: Records, now: float) -> Json:
    online = [row for row in records.workers.values() if row.online(now)]
    active = records.unfinished()
    queued = sum(row.waiting * row.pixelsteps for row in active)
    recent = [
        row.request.pixelsteps
        for row in records.generations.values()
        if row.state is State.ok and now - row.popped_at <= 60
    ]
    return {
        "queued_requests": sum(row.waiting + row.count(State.processing) for row in active),
        "queued_text_requests": 0,
        "worker_count": len(online),
        "text_worker_count": 0,
        "thread_count": sum(row.offer.threads for row in online),
        "text_thread_count": 0,
        "queued_megapixelsteps": round(queued / 1e6, 2),
        "past_minute_megapixelsteps": round(sum(recent) / 1e6, 2),
        "queued_forms": 0.0,
        "interrogator_count": 0,
        "interrogator_thread_count": 0,
        "queued_tokens": 0.0,
        "past_minute_tokens": 0.0,
    }


def modes(records: Records) -> Json:
    return {
        "maintenance_mode": records.maintenance_mode,
        "invite_only_mode": records.invite_only_mode,
        "raid_mode": False,
    }

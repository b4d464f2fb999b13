"""What a change of each key needs until it counts, and how a running worker takes changes over."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, PrivateAttr


class Needs(StrEnum):
    """What has to come before a changed key counts."""

    nothing = "now"
    next_job = "next job"
    restart = "restart"


_NOTHING = (
    *("serve_hours", "pause_for", "others_on_card", "user_active", "on_battery"),
    *("max_card_temperature", "card_power_limit"),
    *("notify", "notify_skip", "notify_no_jobs_hours"),
    *("censor_nsfw", "censorlist", "show_pictures", "page_password"),
    "auto_update",
)
_NEXT_JOB = (
    *("max_power", "max_batch", "max_tiles", "max_length", "max_context_length"),
    *("nsfw", "blacklist", "priority_usernames", "require_upfront_kudos", "allow_unsafe_ip"),
    *("allow_img2img", "allow_painting", "allow_post_processing", "allow_lora"),
    *("allow_controlnet", "allow_extended_controlnet", "allow_sdxl_controlnet"),
    *("extra_slow_worker", "limit_max_steps", "bridge_agent"),
    "max_lora_cache_size",
)
LIVE = {**dict.fromkeys(_NOTHING, Needs.nothing), **dict.fromkeys(_NEXT_JOB, Needs.next_job)}


def needs(key: str) -> Needs:
    """What is not read anew while the worker runs needs a restart."""
    return LIVE.get(key, Needs.restart)


class LiveConfig(BaseModel):
    """A configuration that never changes, and knows what a running worker has taken over since.

    Whatever is looked at again and again reads its key of `now`. Any thread may use it.
    """

    _now: Self | None = PrivateAttr(None)

    @property
    def now(self) -> Self:
        """With the keys that were taken over, and all others as at the start."""
        return self._now or self

    def take_over(self, saved: Self) -> None:
        """From here on, `now` has the keys of `saved` that need no restart."""
        now = self.model_copy(update={key: getattr(saved, key) for key in LIVE})
        now._now = None  # or it would hold all that came before
        self._now = now

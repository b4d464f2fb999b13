"""How long a pause lasts, in an owner's words: 2h, 1 h 30 min, until 08:00, until tomorrow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.config.hours import DAYS

EXPECTED = "such as 2h, 90min, until 08:00, until tomorrow or until fri 18:00"
MORNING = (8, 0)  # when a day begins that is named without a time
LONGEST = timedelta(days=366)

_SPAN = re.compile(
    r"(?:(\d{1,5})\s*d(?:ays?)?)?\s*(?:(\d{1,5})\s*h(?:ours?)?)?\s*(?:(\d{1,5})\s*m(?:in(?:utes?)?)?)?"
)
_UNTIL = re.compile(r"until\s+(?:(today|tomorrow|[a-z]{3,9})\s*)?(?:(\d{1,2})(?::(\d{2}))?)?")


@dataclass(frozen=True, slots=True)
class PauseEnd:
    """When a pause ends."""

    until: float | None  # seconds since 1970 UTC; None: not before the owner says so
    is_span: bool = False  # it was said as so many hours or minutes


def parse_pause(text: str, now: float) -> PauseEnd:
    """In local time; a time that is over for today is tomorrow's. "" lasts until resume.

    Raises ValueError, with what is wrong and what is expected, for anything else.
    """
    words = " ".join(text.lower().split())
    if not words:
        return PauseEnd(None)
    if (span := _SPAN.fullmatch(words)) and any(span.groups()):
        days, hours, minutes = (int(each or 0) for each in span.groups())
        return PauseEnd(now + _within(timedelta(days, hours=hours, minutes=minutes)), is_span=True)
    if (until := _UNTIL.fullmatch(words)) and any(until.groups()):
        return PauseEnd(_moment(*until.groups(), now=datetime.fromtimestamp(now)).timestamp())
    raise ValueError(f"{text!r} is not a time; give one {EXPECTED}")


def _within(span: timedelta) -> float:
    if not timedelta(0) < span <= LONGEST:
        raise ValueError("a pause lasts from a minute to a year; without a time, until resume")
    return span.total_seconds()


def _moment(day: str | None, hour: str | None, minute: str | None, *, now: datetime) -> datetime:
    """Local, and after `now`."""
    at = (int(hour), int(minute or 0)) if hour else MORNING
    if at[0] > 23 or at[1] > 59:
        raise ValueError(f"{hour}:{minute or '00'} is not a time of day; the last one is 23:59")
    today = now.replace(hour=at[0], minute=at[1], second=0, microsecond=0)
    if day is None:
        return today if today > now else today + timedelta(1)
    if day == "today":
        if today <= now:
            raise ValueError(f"{today:%H:%M} has passed today")
        return today
    if day == "tomorrow":
        return today + timedelta(1)
    if day[:3] not in DAYS:
        raise ValueError(f"{day!r} is not a day; give a time {EXPECTED}")
    ahead = (DAYS.index(day[:3]) - now.weekday()) % 7
    then = today + timedelta(ahead)
    return then if then > now else then + timedelta(7)

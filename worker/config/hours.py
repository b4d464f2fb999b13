"""The hours in which a worker serves, such as "mon-fri 22:00-07:00" and "sat-sun"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
_AHEAD_MINUTES = 8 * DAY_MINUTES  # a week, and a day more than any change of clocks
_SPAN = re.compile(
    r"(?P<days>[a-z]{3}(?:\s*[-,]\s*[a-z]{3})*)?\s*"
    r"(?:(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2}))?"
)


@dataclass(frozen=True, slots=True)
class HourSpan:
    """Hours of a day that come again each week, by the clock on the wall."""

    days: frozenset[int]  # on which it begins; Monday is 0
    start: int  # minutes after midnight
    end: int  # of the next day where it is not after `start`

    @classmethod
    def parse(cls, value: object) -> Self:
        """From "mon-fri 22:00-07:00", "sat,sun" or "08:00-24:00". Raises ValueError otherwise."""
        text = value.strip().lower() if isinstance(value, str) else ""
        span = _SPAN.fullmatch(text)
        if not text or not span:
            raise ValueError
        start, end = span["start"] or "00:00", span["end"] or "24:00"
        begins, ends = _minutes(start), _minutes(end)
        if begins in (ends, DAY_MINUTES):
            raise ValueError
        return cls(_days(span["days"] or "mon-sun"), begins, ends)

    def holds(self, when: datetime) -> bool:
        day, minute = when.weekday(), when.hour * 60 + when.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        began_today = day in self.days and minute >= self.start
        return began_today or ((day - 1) % 7 in self.days and minute < self.end)


def _days(text: str) -> frozenset[int]:
    """ "fri-mon" goes over the end of the week."""
    days: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days.update((begin + ahead) % 7 for ahead in range((end - begin) % 7 + 1))
    return frozenset(days)


def _minutes(text: str) -> int:
    hour, minute = map(int, text.split(":"))
    if minute > 59 or hour * 60 + minute > DAY_MINUTES:
        raise ValueError
    return hour * 60 + minute


def are_open(spans: Sequence[HourSpan], when: datetime) -> bool:
    """Whether one of them holds at this local time."""
    return any(span.holds(when) for span in spans)


def next_change(
    spans: Sequence[HourSpan],
    now: float,
    local: Callable[[float], datetime] = datetime.fromtimestamp,
) -> float | None:
    """When they open or close next, in seconds since 1970 UTC; None where they never do.

    Each minute is asked, by the clock that will be on the wall then: where clocks change, an hour
    may come twice or not at all. `local` gives the local time of a moment.
    """
    is_open = are_open(spans, local(now))
    minute = now - now % 60
    for ahead in range(1, _AHEAD_MINUTES + 1):
        if are_open(spans, local(minute + 60 * ahead)) is not is_open:
            return minute + 60 * ahead
    return None

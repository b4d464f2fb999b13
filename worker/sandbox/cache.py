"""Pages that the horde shows for a while as they were."""

from __future__ import annotations

from collections.abc import Callable, Hashable

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

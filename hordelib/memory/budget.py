"""How much memory models may take: arithmetic on what a device says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What may be used of one memory. Reads it each time that it is asked, and changes nothing.

    `setting` is the owner's key that the reserve comes from, for what the owner is told.
    """

    free_bytes: Callable[[], int]
    reserve_bytes: int  # stays free for other programs
    setting: str = "ram_to_leave_free"

    def spare_bytes(self) -> int:
        """What may still be used; below 0 where others have taken some of the reserve."""
        return self.free_bytes() - self.reserve_bytes

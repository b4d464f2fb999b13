"""What the cache of models needs of a part, and how much memory moving one takes."""

from __future__ import annotations

from typing import Protocol, TypeVar


class Part(Protocol):
    """What the cache needs of a model that was read; it starts in main memory."""

    @property
    def host_bytes(self) -> int:
        """What of main memory is free again once the part is dropped."""
        ...

    @property
    def device_bytes(self) -> int:
        """What it takes of the device now."""
        ...

    @property
    def missing_bytes(self) -> int:
        """What `to_device` will take of the device in addition."""
        ...

    @property
    def staging_bytes(self) -> int:
        """What `to_device` will take of main memory, where that is not the device."""
        ...

    @property
    def return_bytes(self) -> int:
        """What `to_host` will take of main memory."""
        ...

    @property
    def can_stream(self) -> bool:
        """Whether it also works while only some of it is on the device."""
        ...

    @property
    def computes_in_host(self) -> bool:
        """Whether main memory is where it computes, also on a machine with a card."""
        ...

    def give_back(self, size_bytes: int, /) -> bool:
        """Take about so much of it off a card; False where only the whole of it can go."""
        ...

    def to_device(self) -> None: ...
    def to_host(self) -> None: ...


P = TypeVar("P", bound=Part)

"""What a device does at a moment. It is apart from the device, so that `status` loads no engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What one device does at a moment, for its owner."""

    name: str
    number: str
    """Of a card, as nvidia-smi has it, and 2:0 for a part of one; "" for the processor."""
    uuid: str
    """Of a card; "" for the processor."""
    doing: str
    """starting, working, waiting, paused or out: it can't be used at the moment."""
    model: str = ""
    """Of the job at work."""
    why: str = ""
    """Why this device alone is paused or out; "" for nothing."""

    @property
    def words(self) -> str:
        model = f" on {self.model}" if self.model else ""
        return f"{self.doing}{model}{f': {self.why}' if self.why else ''}"

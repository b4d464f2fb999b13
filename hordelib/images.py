"""Pictures in memory, and their encoding for the horde. No torch, no files unless asked."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# What the horde's other workers send, so that clients see the same quality and size.
WEBP_QUALITY = 95
WEBP_METHOD = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """One RGB image, 8 bits per channel, with the seed that makes it again."""

    width: int
    height: int
    rgb: bytes  # rows from the top, height * width * 3 bytes
    seed: int

    def __post_init__(self) -> None:
        if len(self.rgb) != self.width * self.height * 3:
            raise ValueError(f"{len(self.rgb)} bytes for {self.width}x{self.height} RGB pixels")

    def to_pil(self) -> Image.Image:
        return Image.frombytes("RGB", (self.width, self.height), self.rgb)

    def to_webp(self) -> bytes:
        """The file that is uploaded; the same picture always gives the same bytes."""
        file = io.BytesIO()
        self.to_pil().save(file, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
        return file.getvalue()

    def save(self, path: Path | str) -> None:
        """Write a file in the format of the path's ending. Raises ValueError for an unknown one."""
        self.to_pil().save(path)

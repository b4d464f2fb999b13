"""Pictures in memory, and their encoding for the horde. No torch, no files unless asked."""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Literal, Self

from PIL import Image

Mode = Literal["RGB", "RGBA", "L"]  # Pillow's: colours, colours with opacity, one channel

# The quality that the horde's other workers send. They use method 6, the slowest: it takes more
# than twice as long as 5, for files that are 1 to 4 % smaller and no better (docs/benchmarks.md).
WEBP_QUALITY = 95
WEBP_METHOD = 5
MAX_WEBP_SIDE = 16383  # pixels; the file format's own limit


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that a job starts from, upright: 8 bits per channel, rows from the top."""

    width: int
    height: int
    mode: Mode
    pixels: bytes

    def __post_init__(self) -> None:
        _insist_on_size(self)

    @classmethod
    def of_pil(cls, image: Image.Image, mode: Mode = "RGB") -> Self:
        return cls(image.width, image.height, mode, image.convert(mode).tobytes())

    def to_pil(self) -> Image.Image:
        return Image.frombytes(self.mode, (self.width, self.height), self.pixels)

    @property
    def digest(self) -> str:
        """Tells two images apart (SHA-1 of all that there is)."""
        head = f"{self.mode} {self.width} {self.height} ".encode()
        return sha1(head + self.pixels, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished image, 8 bits per channel, with the seed that makes it again.

    `job_id` and `index` say whose it is; they are set where the graph hands the pixels over.
    """

    width: int
    height: int
    pixels: bytes  # rows from the top
    seed: int
    mode: Mode = "RGB"
    job_id: str = ""
    index: int = 0  # its place among the images of the job

    def __post_init__(self) -> None:
        _insist_on_size(self)

    def to_pil(self) -> Image.Image:
        return Image.frombytes(self.mode, (self.width, self.height), self.pixels)

    @classmethod
    def of_file(cls, file: bytes, seed: int) -> Self:
        """The picture in a file that `to_webp` made. Raises OSError where it is damaged."""
        with Image.open(io.BytesIO(file)) as image:
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            return cls(image.width, image.height, image.convert(mode).tobytes(), seed, mode)

    def to_webp(self) -> bytes:
        """The file that is uploaded; the same picture always gives the same bytes."""
        file = io.BytesIO()
        self.to_pil().save(file, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
        return file.getvalue()

    def save(self, path: Path | str) -> None:
        """Write a file in the format of the path's ending. Raises ValueError for an unknown one."""
        self.to_pil().save(path)


def _insist_on_size(image: SourceImage | Picture) -> None:
    expected = image.width * image.height * len(image.mode)
    if len(image.pixels) != expected:
        size = f"{image.width}x{image.height} {image.mode}"
        raise ValueError(f"{len(image.pixels)} bytes for {size} pixels")

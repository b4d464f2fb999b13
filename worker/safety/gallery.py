"""The last pictures that left, small, for an owner who has set `show_pictures`."""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

MOST_PICTURES = 12
MOST_BYTES = 64 << 20  # of files that nobody has looked at yet: then the oldest are forgotten
SIDE = 384  # pixels, the longer one of what is shown
BLURRED_SIDE = 8  # pixels that are left of the longer side: colours, and nothing else


@dataclass(eq=False, slots=True)
class ShownPicture:
    """`file` is the picture as it was uploaded, and the small one once somebody has looked."""

    number: int
    is_nsfw: bool
    file: bytes
    is_small: bool = False
    at: float = field(default_factory=time.time)  # seconds since 1970 UTC


class Gallery:
    """Keeps them in memory alone, without anything else of their jobs. Any thread may use it.

    While they are not `wanted`, none is kept.
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        self._wanted = wanted
        self._pictures: deque[ShownPicture] = deque(maxlen=MOST_PICTURES)
        self._count = 0
        self._changing = threading.Lock()

    def add(self, file: bytes, *, is_nsfw: bool) -> None:
        """A picture that leaves as it is; it is not decoded here, where jobs wait."""
        with self._changing:
            if not self.is_wanted:
                return
            self._count += 1
            self._pictures.append(ShownPicture(self._count, is_nsfw, file))
            while sum(len(each.file) for each in self._pictures) > MOST_BYTES:
                self._pictures.popleft()

    @property
    def is_wanted(self) -> bool:
        """Whether the owner wants them now; those that there were are forgotten where not."""
        if not self._wanted():
            self._pictures.clear()
            return False
        return True

    def pictures(self) -> Sequence[ShownPicture]:
        """Newest first."""
        with self._changing:
            if not self.is_wanted:
                return ()
            return tuple(reversed(self._pictures))

    def small(self, number: int) -> bytes | None:
        """A small WebP file of it, blurred where it is not safe for work; None: it is gone.

        Raises OSError for a file that is damaged.
        """
        picture = next((each for each in self.pictures() if each.number == number), None)
        if picture is None:
            return None
        if not picture.is_small:
            small = _small(picture.file, is_blurred=picture.is_nsfw)
            with self._changing:
                picture.file, picture.is_small = small, True
        return picture.file


def _small(file: bytes, *, is_blurred: bool) -> bytes:
    with Image.open(io.BytesIO(file)) as opened:
        picture = opened.convert("RGBA" if opened.mode == "RGBA" else "RGB")
    picture.thumbnail((SIDE, SIDE))
    if is_blurred:
        size = picture.size
        picture.thumbnail((BLURRED_SIDE, BLURRED_SIDE))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    target = io.BytesIO()
    picture.save(target, "WEBP", quality=80)
    return target.getvalue()

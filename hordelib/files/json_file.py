"""Small JSON files that hold what can be found out again: a damaged one counts as missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from hordelib.files.whole_files import put_aside, write_shared

log = logging.getLogger(__name__)

MOST_BYTES = 64 << 20

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class JsonFile(Generic[Content]):
    """`shape` is what may be in it, `write_to` says who may read it.

    `what` is lost with it, for the owner's log, and one that can't be read is put aside; "": the
    loss of this one is not told.
    """

    path: Path
    shape: TypeAdapter[Content]
    what: str = ""
    write_to: Callable[[Path, bytes], None] = write_shared

    def read(self) -> Content | None:
        """None where there is no file that can be used."""
        try:
            with self.path.open("rb") as file:
                return self.shape.validate_json(file.read(MOST_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(f"not used, {self.what} begins anew: {error.strerror}")
        except ValidationError:
            aside = put_aside(self.path) if self.what else ""
            self._tell(f"damaged, or of another version: {self.what} begins anew{aside}")
        return None

    def write(self, content: Content) -> None:
        """At once or not at all. Raises OSError."""
        self.write_to(self.path, self.shape.dump_json(content, indent=1))

    def keep(self, content: Content) -> None:
        """As `write`; where that can't be done, it is no error."""
        try:
            self.write(content)
        except OSError as error:
            self._tell(f"{error.strerror}; {self.what} is lost at the end")

    def _tell(self, line: str) -> None:
        if self.what:
            log.warning("%s: %s", self.path, line)

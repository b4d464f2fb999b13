"""What there is of each model on disk, what is still to come, and whether it fits.

Looking at the disk (`look`) and deciding (`make_plan`) are apart: the plan is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hordelib.errors import ModelBroken
from hordelib.files.headers import verify_checkpoint
from hordelib.files.whole_files import PART, size_on_disk
from hordelib.job.control_weights import may_have_size
from worker.command_line import LAUNCHER
from worker.models.files.checksums import VerifiedFiles
from worker.models.reference import ReferenceEntry, ReferenceFile

DISK_FLOOR_BYTES = 2 * 10**9  # no download leaves less of the disk free


class State(StrEnum):
    """How far a file, or a model as a whole, has come; the later ones are worse."""

    verified = "verified"
    plausible = "verified by size and format alone"  # nobody can say what should be in it
    unread = "not read yet"  # it is there, and nobody knows what is in it
    unlisted = "not in the reference"  # it is there, and nobody can say what should be in it
    incomplete = "incomplete"
    missing = "missing"
    other = "another file"


_ORDER = tuple(State)


@dataclass(frozen=True, slots=True)
class FileStock:
    """A file of the reference, and what of it is on disk."""

    about: ReferenceFile
    path: Path
    state: State
    there_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stock:
    """A model of the reference, and what of it is on disk."""

    entry: ReferenceEntry
    files: tuple[FileStock, ...]

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def state(self) -> State:
        """That of its worst file."""
        worst = max(self.files, key=lambda file: _ORDER.index(file.state))
        some = any(file.there_bytes for file in self.files)
        return State.incomplete if worst.state is State.missing and some else worst.state

    @property
    def there_bytes(self) -> int:
        return sum(file.there_bytes for file in self.files)

    @property
    def is_wanting(self) -> bool:
        """Whether something of it is still to be downloaded."""
        return self.state in (State.incomplete, State.missing)

    @property
    def to_come_bytes(self) -> int:
        """What its downloads will add to the disk; 0 where nobody knows."""
        if not self.is_wanting or not self.entry.size_bytes:
            return 0
        return max(self.entry.size_bytes - self.there_bytes, 0)

    @property
    def lacks_checksum(self) -> bool:
        """Whether a file of it could not be verified, and so is not to be downloaded."""
        return any(not (file.about.checksum.value or file.about.by_size) for file in self.files)


def look(
    folder: Path, entry: ReferenceEntry, verified: VerifiedFiles, main: Path | None = None
) -> Stock:
    """What is on disk of an entry; reads no file but what is remembered of it.

    `main` is where its main file is, if not where the reference has it.
    """
    paths = [folder / file.path for file in entry.files]
    paths[0] = main or paths[0]
    looked = (_look_at(path, f, verified) for path, f in zip(paths, entry.files, strict=True))
    return Stock(entry, tuple(looked))


def _look_at(path: Path, about: ReferenceFile, verified: VerifiedFiles) -> FileStock:
    if not path.is_file():
        part_bytes = size_on_disk(path.with_name(path.name + PART))
        state = State.incomplete if part_bytes else State.missing
        return FileStock(about, path, state, part_bytes)
    there_bytes = size_on_disk(path)
    if about.by_size:
        return FileStock(about, path, state_by_size(path, about), there_bytes)
    wanted = about.checksum
    known = verified.known(path, of_tensors=wanted.of_tensors)
    return FileStock(about, path, state_of(known, wanted.value), there_bytes)


def state_by_size(path: Path, about: ReferenceFile) -> State:
    """Of a file that is there and that no sha256 is known of: its list of tensors is read."""
    if not may_have_size(size_on_disk(path), about.size_bytes):
        return State.other
    try:
        verify_checkpoint(path)
    except ModelBroken:
        return State.other
    return State.plausible


def state_of(known: str, wanted: str) -> State:
    """What a checksum that is known of a file makes it, beside the one that it should have."""
    if not wanted:
        return State.unlisted
    if not known:
        return State.unread
    return State.verified if known == wanted else State.other


# ---- deciding --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """A model that is not downloaded, and why: one line with what the owner can do."""

    stock: Stock
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be downloaded, in this order, and what it does to the disk."""

    fetched: tuple[Stock, ...]
    refused: tuple[Refused, ...]
    free_bytes: int

    @property
    def to_come_bytes(self) -> int:
        return sum(stock.to_come_bytes for stock in self.fetched)

    @property
    def is_exact(self) -> bool:
        """Whether the reference tells the size of everything that is to come."""
        return all(stock.entry.size_bytes for stock in self.fetched)

    @property
    def summary(self) -> str:
        """One line: how much is to come, and how much room there is."""
        if not self.fetched:
            return f"nothing to download; {size_text(self.free_bytes)} free"
        size = f": {size_text(self.to_come_bytes)}" if self.to_come_bytes else " (size unknown)"
        more = ", and some of unknown size" if self.to_come_bytes and not self.is_exact else ""
        return f"{len(self.fetched)} to download{size}{more}; {size_text(self.free_bytes)} free"


def make_plan(wanted: Sequence[Stock], idle: Iterable[Stock], free_bytes: int) -> Plan:
    """Which of the `wanted` models are downloaded: as many, in this order, as the disk takes.

    `idle` are models on disk that nobody wants: what is named when there is no room. The disk
    keeps DISK_FLOOR_BYTES.
    """
    spare_bytes = free_bytes - DISK_FLOOR_BYTES
    in_use = {file.path for stock in wanted for file in stock.files}
    removable = [(stock, _freed_bytes(stock, in_use)) for stock in idle]
    removable = [(stock, freed) for stock, freed in removable if freed]
    fetched: list[Stock] = []
    refused: list[Refused] = []
    for stock in wanted:
        if not stock.is_wanting:
            continue
        if stock.lacks_checksum:
            refused.append(Refused(stock, _no_checksum(stock)))
        elif stock.to_come_bytes > spare_bytes:
            refused.append(Refused(stock, _no_room(stock, spare_bytes, removable)))
        else:
            fetched.append(stock)
            spare_bytes -= stock.to_come_bytes
    return Plan(tuple(fetched), tuple(refused), free_bytes)


def _freed_bytes(stock: Stock, in_use: set[Path]) -> int:
    return sum(file.there_bytes for file in stock.files if file.path not in in_use)


def _no_checksum(stock: Stock) -> str:
    return f"{stock.name}: the reference has no checksum for it; fetch it yourself (custom_models)"


def _no_room(stock: Stock, spare_bytes: int, removable: list[tuple[Stock, int]]) -> str:
    needed = size_text(stock.to_come_bytes) if stock.to_come_bytes else "room (size unknown)"
    room = f"room for {size_text(spare_bytes)}" if spare_bytes > 0 else "none"
    floor = size_text(DISK_FLOOR_BYTES)
    told = f"{stock.name}: needs {needed}, and there is {room} ({floor} of the disk stay free)"
    lacking_bytes = stock.to_come_bytes - spare_bytes
    names, freed_bytes = _enough(removable, lacking_bytes)
    if freed_bytes >= lacking_bytes:
        return f"{told}; {LAUNCHER} models remove {names} would free {size_text(freed_bytes)}"
    return f"{told}; free {size_text(lacking_bytes)}, or set cache_home to a larger disk"


def _enough(removable: list[tuple[Stock, int]], lacking_bytes: int) -> tuple[str, int]:
    """Names of unwanted models, the largest first, that free so much; all, where that fails."""
    names: list[str] = []
    freed_bytes = 0
    for stock, freed in sorted(removable, key=lambda each: -each[1]):
        if freed_bytes >= lacking_bytes:
            break
        names.append(f'"{stock.name}"')
        freed_bytes += freed
    return " ".join(names), freed_bytes


def size_text(size_bytes: int) -> str:
    """A size for people: 6.9 GB, 340 MB, 12 kB."""
    for unit_bytes, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if size_bytes >= unit_bytes:
            number = size_bytes / unit_bytes
            return f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"
    return f"{size_bytes / 1000:.0f} kB"

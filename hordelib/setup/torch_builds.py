"""Which torch runs on this machine's cards: PyPI's newest one needs a new driver and a new card.

Cards and driver are asked of `nvidia-smi`, which comes with every driver. Standard library only:
runs in an environment that has nothing but pip.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, ...]
Capability = tuple[int, int]
"""A card's compute capability, such as (8, 6)."""

ASK_SECONDS = 30.0  # a driver that nobody uses yet takes some to wake up
WSL_NVIDIA_SMI = Path("/usr/lib/wsl/lib/nvidia-smi")  # not on every PATH there
QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")
AUTO, NEWEST = "auto", "newest"


@dataclass(frozen=True, slots=True)
class TorchBuilds:
    """Releases of torch whose builds on PyPI (Linux, x86_64) are alike."""

    first: Version
    last: Version
    """Both with two numbers: 2.5 stands for 2.5.0, 2.5.1 and so on."""
    cuda: str
    least_driver: Version
    kernels: frozenset[Capability]

    @property
    def bound(self) -> str:
        """As pip words it."""
        major, minor = self.last
        return f">={_text(self.first)},<{major}.{minor + 1}"

    def serves(self, card: Card) -> bool:
        """CUDA runs a kernel on cards of the same major capability, from its own minor one up."""
        if card.capability is None:
            return True
        major, minor = card.capability
        return any(each == major and least <= minor for each, least in self.kernels)


@dataclass(frozen=True, slots=True)
class Card:
    name: str
    capability: Capability | None
    """None where the driver is too old to tell."""
    driver: str

    def __str__(self) -> str:
        known = self.capability
        return f"{self.name} ({known[0]}.{known[1]})" if known else self.name


@dataclass(frozen=True, slots=True)
class Choice:
    """`bound` is what pip is told beside pyproject.toml's own range; "" is nothing."""

    bound: str
    reason: str


def _kernels(*names: int) -> frozenset[Capability]:
    return frozenset((name // 10, name % 10) for name in names)


# Kernels as the wheels' own libtorch_python.so names them; CUDA as their requirements do. A build
# for CUDA 12.x runs with any driver of CUDA 12.0 or newer:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
BUILDS = (
    TorchBuilds((2, 11), (2, 14), "13.0", (580,), _kernels(75, 80, 86, 90, 100, 120)),
    TorchBuilds((2, 8), (2, 10), "12.8", (525, 60), _kernels(70, 75, 80, 86, 90, 100, 120)),
    TorchBuilds((2, 5), (2, 7), "12.4 to 12.6", (525, 60), _kernels(50, 60, 70, 75, 80, 86, 90)),
)
"""The newest first, and all of pyproject.toml's range."""


def cards() -> list[Card]:
    """All NVIDIA cards of this machine, as its driver names them; empty without a driver."""
    program = shutil.which("nvidia-smi") or str(WSL_NVIDIA_SMI)
    try:
        told = subprocess.run(
            [program, *QUERY], capture_output=True, text=True, timeout=ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return []
    return [card for line in told.stdout.splitlines() if (card := _card(line))]


def _card(line: str) -> Card | None:
    name, capability, driver = ([part.strip() for part in line.rsplit(",", 2)] + ["", ""])[:3]
    known = re.fullmatch(r"(\d{1,3})\.(\d)", capability)
    if not name or not version(driver):
        return None
    return Card(name, (int(known[1]), int(known[2])) if known else None, driver)


def version(text: str) -> Version:
    """(2, 7, 1) of "2.7.1"; () of what is no version."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+)*", text) else ()


def chosen(asked: str, found: Sequence[Card]) -> Choice:
    """Which torch to install: `asked` is "auto", "newest", or a release such as 2.7 or 2.7.1.

    Raises ValueError for anything else, and for a release that is not in BUILDS.
    """
    if asked == NEWEST:
        return Choice(BUILDS[0].bound, "the newest, as asked")
    if asked != AUTO:
        return _as_asked(asked)
    if not has_several_builds():
        return Choice("", "the newest, which is the only kind for this system")
    if not found:
        return Choice("", "the newest, since no NVIDIA driver names a card")
    return _for_cards(found)


def has_several_builds() -> bool:
    """PyPI's builds for other systems bring no CUDA."""
    return (platform.system(), platform.machine()) == ("Linux", "x86_64")


def _as_asked(asked: str) -> Choice:
    numbers = version(asked)
    if not 2 <= len(numbers) <= 3 or not BUILDS[-1].first <= numbers[:2] <= BUILDS[0].last:
        oldest, newest = (_text(each) for each in (BUILDS[-1].first, BUILDS[0].last))
        raise ValueError(
            f"--torch {asked}: expected auto, newest, or a release of {oldest} to {newest},"
            " such as 2.7 or 2.7.1"
        )
    return Choice(f"=={asked}.*" if len(numbers) == 2 else f"=={asked}", "as asked")


def _for_cards(found: Sequence[Card]) -> Choice:
    """The newest that all cards and the driver can use; else what serves the most cards."""
    named = ", ".join(dict.fromkeys(map(str, found)))
    driver = found[0].driver
    if not any(build.serves(card) for build in BUILDS for card in found):
        return Choice("", f"no torch that can be installed has kernels for {named}")
    usable = [build for build in BUILDS if version(driver) >= build.least_driver]
    if not usable:
        least = _text(BUILDS[-1].least_driver)
        return Choice(
            BUILDS[-1].bound,
            f"driver {driver} of {named} is too old for any torch that can be installed;"
            f" update it to {least} or newer, or pictures are made without the card",
        )
    best = max(usable, key=lambda build: sum(map(build.serves, found)))
    left_out = [str(card) for card in found if not best.serves(card)]
    return Choice(
        best.bound,
        f"torch {_text(best.last)} with CUDA {best.cuda} is the newest for {named}"
        f" with driver {driver}{_left_out(left_out)}{_what_an_update_brings(best, found)}",
    )


def _left_out(names: Sequence[str]) -> str:
    return f"; it has no kernels for {', '.join(names)}" if names else ""


def _what_an_update_brings(best: TorchBuilds, found: Iterable[Card]) -> str:
    newer = [build for build in BUILDS[: BUILDS.index(best)] if all(map(build.serves, found))]
    if not newer:
        return ""
    build = newer[0]
    return f"; driver {_text(build.least_driver)} or newer would allow torch {_text(build.last)}"


def _text(numbers: Version) -> str:
    return ".".join(map(str, numbers))


def main() -> int:
    """Prints the bound, then why, each on a line of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default=AUTO, help="auto, newest, or a release such as 2.7")
    try:
        choice = chosen(parser.parse_args().torch, cards())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(choice.bound, choice.reason, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The packages that pyproject.toml asks for: are they in this Python's environment, and whole?

A stamp in the environment says what it was last set up for. It is marked as unfinished before pip
starts and written last, so an environment whose set-up was interrupted is never trusted.

Standard library only: runs in an environment that has nothing but pip.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

STAMP = "dreamer-setup.json"
UNFINISHED = ""
GB = 10**9
LINUX_X86_64 = ("Linux", "x86_64")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an environment was set up for; `fingerprint` is UNFINISHED while that goes on."""

    fingerprint: str
    extras: tuple[str, ...]
    torch: str = ""
    """What was said of torch's version beside pyproject.toml: `<2.8`; "" for nothing."""

    @classmethod
    def read(cls, environment: Path) -> Self:
        """The stamp in `environment`. One that is missing or damaged counts as unfinished."""
        try:
            stored = json.loads((environment / STAMP).read_text("utf-8"))
            return cls(stored["fingerprint"], tuple(stored["extras"]), stored.get("torch", ""))
        except (OSError, ValueError, TypeError, KeyError):
            return cls(UNFINISHED, ())

    def write(self, environment: Path) -> None:
        """Atomic: a full disk or a kill leaves the stamp that was there."""
        partial = environment / f"{STAMP}.partial"
        partial.write_text(json.dumps(asdict(self)) + "\n", "utf-8")
        os.replace(partial, environment / STAMP)

    def merged_extras(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """An extra that was installed once stays: a later plain set-up must not outdate it."""
        return tuple(sorted({*self.extras, *wanted}))


def requirements(pyproject: Path, extras: Iterable[str], torch: str = "") -> list[str]:
    """What pip has to install, as pyproject.toml words it, and before it `torch`'s bound (`<2.8`):
    pip downloads the newest release that the first line allows before it reads the next one.

    Raises KeyError for an extra that it does not have.
    """
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    bound = [f"torch{torch}"] if torch else []
    more = (line for extra in extras for line in optional[extra])
    return [*bound, *project["dependencies"], *more]


def matched_to_torch(wanted: Iterable[str], site_packages: Path) -> Iterator[str]:
    """A torchaudio that is newer than the torch which is there would bring another torch."""
    torch = next(site_packages.glob("torch-*.dist-info"), None)
    newest = torch.name.removesuffix(".dist-info").split("-")[1].split("+")[0] if torch else ""
    for line in wanted:
        yield f"{line},<={newest}" if newest and line.startswith("torchaudio") else line


def fingerprint(wanted: Sequence[str]) -> str:
    """Changes with the requirements and with this Python's minor version, and with nothing else."""
    parts = [f"python{sys.version_info.major}.{sys.version_info.minor}", *sorted(wanted)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def incomplete_packages(site_packages: Path) -> list[Path]:
    """The .dist-info folders of packages with a file missing or cut short.

    An interrupted pip leaves such packages, and takes them for installed the next time.
    """
    return [info for info in sorted(site_packages.glob("*.dist-info")) if not _is_whole(info)]


def _is_whole(info: Path) -> bool:
    """Compare a package's files with the sizes in its RECORD, which pip writes last."""
    try:
        with (info / "RECORD").open(encoding="utf-8", newline="") as record:
            rows = [(row[0], row[2]) for row in csv.reader(record) if row]
        # Compiled files carry no size, and Python makes them anew.
        return all(
            (info.parent / path).stat().st_size == int(size or -1)
            for path, size in rows
            if size and not path.endswith(".pyc")
        )
    except (OSError, ValueError, IndexError):
        return False


def forget_incomplete_packages(site_packages: Path) -> list[str]:
    """Make pip install each incomplete package again; returns their names and versions."""
    incomplete = incomplete_packages(site_packages)
    leftovers = site_packages.glob("~*")  # pip's copies of packages it was replacing
    for path in (*incomplete, *leftovers):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [info.name.removesuffix(".dist-info") for info in incomplete]


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """What a whole runtime takes, and what is downloaded for it. Measured, and rounded up."""

    installed_bytes: int  # with ComfyUI, the test packages and the demo's model
    download_bytes: int

    def peak_bytes(self, present_bytes: int, copies: int) -> int:
        """The most that an installation needs beside the `present_bytes` of an earlier one.

        `copies` of each download exist at a time: pip's temporary one, and the one in its cache.
        """
        missing = max(0, self.installed_bytes - present_bytes)
        downloads = self.download_bytes * missing // self.installed_bytes
        return missing + copies * downloads + GB // 4


CUDA_BUILD = DiskNeed(7 * GB, 3_200_000_000)
SMALL_BUILD = DiskNeed(2_200_000_000, GB)


def disk_need() -> DiskNeed:
    """PyPI's torch is the CUDA build on Linux x86_64, and much smaller anywhere else."""
    return CUDA_BUILD if (platform.system(), platform.machine()) == LINUX_X86_64 else SMALL_BUILD


def _tree_bytes(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(folder)
        for name in names
    )


def _room(arguments: argparse.Namespace, _: Path) -> int:
    """Say what the installation needs and what is free; fail when it cannot fit."""
    at: Path = arguments.at
    present = sum(_tree_bytes(at / name) for name in (".venv", ".runtime"))
    copies = 1 if os.environ.get("PIP_NO_CACHE_DIR") else 2
    need = disk_need()
    peak = need.peak_bytes(present, copies)
    free = shutil.disk_usage(at).free
    print(
        f"disk: {need.installed_bytes / GB:.1f} GB when done, {present / GB:.1f} GB of it there; "
        f"up to {peak / GB:.1f} GB more while installing, {free / GB:.1f} GB free in {at}"
    )
    if free >= peak:
        return 0
    print(
        f"error: {(peak - free) / GB:.1f} GB are missing in {at}: free them (pip cache purge), "
        "or set DREAMER_RUNTIME to a folder on a larger disk, "
        f"or set PIP_NO_CACHE_DIR=1 (takes {need.download_bytes / GB:.1f} GB less)",
        file=sys.stderr,
    )
    return 1


def _usable(_: argparse.Namespace, site_packages: Path) -> int:
    """Can this environment be completed? Only a whole pip can do that."""
    pips = list(site_packages.glob("pip-*.dist-info"))
    return 0 if len(pips) == 1 and _is_whole(pips[0]) else 1


def _current(arguments: argparse.Namespace, _: Path) -> int:
    """Without --torch, what was chosen once stays, whichever cards and driver are there now."""
    stamp = Stamp.read(Path(sys.prefix))
    torch = stamp.torch if arguments.torch is None else arguments.torch
    wanted = requirements(arguments.pyproject, stamp.merged_extras(arguments.extra), torch)
    return 0 if stamp.fingerprint == fingerprint(wanted) else 1


def _begin(arguments: argparse.Namespace, site_packages: Path) -> int:
    """Mark the environment as unfinished, drop what is broken, and print what pip shall install."""
    environment = Path(sys.prefix)
    stamp = Stamp.read(environment)
    extras = stamp.merged_extras(arguments.extra)
    torch = stamp.torch if arguments.torch is None else arguments.torch
    wanted = requirements(arguments.pyproject, extras, torch)
    Stamp(UNFINISHED, extras, torch).write(environment)
    for name in forget_incomplete_packages(site_packages):
        print(f"{name} was left incomplete and is installed again", file=sys.stderr)
    print("\n".join(matched_to_torch(wanted, site_packages)))
    return 0


def _finish(arguments: argparse.Namespace, site_packages: Path) -> int:
    if incomplete := incomplete_packages(site_packages):
        names = ", ".join(info.name.removesuffix(".dist-info") for info in incomplete)
        print(f"error: incomplete after the installation: {names}", file=sys.stderr)
        return 1
    begun = Stamp.read(Path(sys.prefix))
    extras = begun.merged_extras(arguments.extra)
    wanted = requirements(arguments.pyproject, extras, begun.torch)
    Stamp(fingerprint(wanted), extras, begun.torch).write(Path(sys.prefix))
    return 0


COMMANDS = {
    "room": _room,
    "usable": _usable,
    "current": _current,
    "begin": _begin,
    "finish": _finish,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--pyproject", type=Path, default=Path("pyproject.toml"))
    parser.add_argument("--at", type=Path, default=Path(), help="the folder to install into")
    parser.add_argument("--extra", action="append", default=[], metavar="NAME")
    parser.add_argument("--torch", metavar="BOUND", help="such as <2.8; as it was chosen before")
    arguments = parser.parse_args()
    try:
        return COMMANDS[arguments.command](arguments, Path(sysconfig.get_path("purelib")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        print(f"error: {arguments.pyproject}: {error}", file=sys.stderr)
    except KeyError as error:
        print(f"error: {arguments.pyproject} has no {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

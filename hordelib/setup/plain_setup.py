"""Set-up where there is no bash, which is Windows: what update-runtime.sh does, in fewer words.

The steps are the same programs, so that either finds what the other has installed. Standard library
only: runs on the Python that makes the environment.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

PROJECT = Path(__file__).resolve().parents[2]
SETUP = PROJECT / "hordelib" / "setup"
EXTRAS = ("test", "safety", "notify")  # each an option, too
NEWER_COMFYUI = "0.33.0"  # with packages of its own
LEAST_PYTHON = (3, 11)


def give_up(told: str) -> NoReturn:
    print(f"error: {told}", file=sys.stderr)
    sys.exit(1)


@dataclass(frozen=True, slots=True)
class Setup:
    """One run of it, into `runtime`."""

    runtime: Path
    extras: tuple[str, ...]
    comfyui: str
    torch: str
    index_url: str

    @property
    def python(self) -> Path:
        """The environment's own."""
        folder = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
        return self.runtime / ".venv" / folder

    @property
    def comfyui_folder(self) -> Path:
        return self.runtime / ".runtime" / "ComfyUI"

    def is_current(self) -> bool:
        if not self.python.exists() or self.torch:
            return False
        return self._passes(*self._packages("current")) and self._passes(
            *self._comfyui("--verify", self.comfyui_folder)
        )

    def install(self) -> None:
        """Raises SystemExit with the exit code of the step that failed, which has said why."""
        self._step(
            "disk", [sys.executable, "-I", SETUP / "packages.py", "room", "--at", self.runtime]
        )
        if not self.python.exists() or not self._passes(*self._packages("usable")):
            print("step 1 of 4: Python environment", flush=True)
            venv.create(self.runtime / ".venv", clear=True, with_pip=True)
        print("step 2 of 4: Python packages", flush=True)
        bound = self._torch_bound()
        wanted = self._told(*self._packages("begin", *bound))
        scratch = self.runtime / ".runtime"
        scratch.mkdir(parents=True, exist_ok=True)
        requirements = scratch / "requirements.txt"
        requirements.write_text(wanted, "utf-8")
        index = ["--extra-index-url", self.index_url] if self.index_url else []
        pip = [self.python, "-I", "-m", "pip", "install", "--prefer-binary", *index]
        self._step("Python packages", [*pip, "--requirement", requirements])
        print("step 3 of 4: ComfyUI", flush=True)
        self._step("ComfyUI", self._comfyui("--into", self.comfyui_folder))
        print("step 4 of 4: check", flush=True)
        self._step("check", self._packages("finish"))
        print(f"everything is in place in {self.runtime}", flush=True)

    def fetch_weights(self) -> None:
        """Those of horde_safety, into the folder of this project's models."""
        command = [self.python, "-P", "-m", "worker", "--home", PROJECT, "fetch", "--safety"]
        environment = {"PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": str(self.runtime)}
        subprocess.run(command, env={**os.environ, **environment}, check=True)

    def _torch_bound(self) -> list[str]:
        """Nothing where a torch is there that nobody wants to change."""
        if not self.torch and self._passes(self.python, "-I", "-c", _HAS_TORCH):
            return []
        asked = ["--torch", self.torch] if self.torch else []
        bound, reason = self._told(
            self.python, "-I", SETUP / "torch_builds.py", *asked
        ).splitlines()[:2]
        print(f"  torch: {reason}", flush=True)
        return [f"--torch={bound}"]

    def _packages(self, action: str, *options: str) -> list[str | Path]:
        newer = ("newer-comfyui",) if self.comfyui == NEWER_COMFYUI else ()
        extras = [f"--extra={name}" for name in (*self.extras, *newer)]
        pyproject = ("--pyproject", PROJECT / "pyproject.toml")
        return [self.python, "-I", SETUP / "packages.py", action, *pyproject, *extras, *options]

    def _comfyui(self, *action: str | Path) -> list[str | Path]:
        version = ["--comfyui", self.comfyui] if self.comfyui else []
        return [self.python, "-I", SETUP / "comfyui_files.py", *action, *version]

    def _passes(self, *command: str | Path) -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _told(self, *command: str | Path) -> str:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        return done.stdout

    def _step(self, name: str, command: Sequence[str | Path]) -> None:
        if code := subprocess.run(command, check=False).returncode:
            give_up(f"{name} failed with exit code {code}: run this again, it goes on from here")


_HAS_TORCH = "from importlib.metadata import version; version('torch')"


def main() -> int:
    parser = argparse.ArgumentParser(
        "update-runtime.cmd", description=(__doc__ or "").split("\n")[0]
    )
    for name in EXTRAS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--no-weights", action="store_true", help="not those of --safety now")
    parser.add_argument("--comfyui", default="", choices=("0.3.75", NEWER_COMFYUI))
    parser.add_argument("--torch", default="", metavar="WHICH", help="auto, newest, or 2.7")
    parser.add_argument("--index-url", default="", metavar="URL", help="one more registry")
    parser.add_argument("--quiet", action="store_true", help="silent when everything is there")
    options = parser.parse_args()
    if sys.version_info < LEAST_PYTHON:
        give_up("Python 3.11 or newer is needed")
    setup = Setup(
        runtime=Path(os.environ.get("DREAMER_RUNTIME") or PROJECT).resolve(),
        extras=tuple(name for name in EXTRAS if getattr(options, name)),
        comfyui=options.comfyui,
        torch=options.torch,
        index_url=options.index_url,
    )
    try:
        if not setup.is_current():
            setup.install()
        elif not options.quiet:
            print(f"everything is in place in {setup.runtime}")
        if options.safety and not options.no_weights:
            setup.fetch_weights()
    except OSError as error:
        give_up(f"{error.filename or setup.runtime}: {error.strerror or error}")
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

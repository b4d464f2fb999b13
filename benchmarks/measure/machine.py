"""What figures were taken on and with: the machine, the libraries, the project's commit."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from benchmarks.measure.gpu import Gpu, first_gpu
from hordelib.comfyui.device import default_folder
from hordelib.memory.readings import main_memory
from hordelib.setup.comfyui_files import installed_comfyui

PROJECT = Path(__file__).parents[2]
CPU_NAMES = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine, and the versions of what computes on it."""

    cpu: str
    cores: int
    ram_bytes: int  # under the limit of a container
    gpu: Gpu | None
    torch: str
    comfyui: str | None
    python: str
    os: str


def this_hardware() -> Hardware:
    return Hardware(
        cpu=_cpu_name(),
        cores=psutil.cpu_count() or 1,
        ram_bytes=main_memory().total_bytes,
        gpu=first_gpu(),
        torch=metadata.version("torch"),
        comfyui=installed_comfyui(default_folder()),
        python=platform.python_version(),
        os=platform.platform(),
    )


def commit() -> str | None:
    """The commit that is checked out, with `-dirty` where files differ; None outside of git."""
    if not (PROJECT / ".git").exists():  # a folder above may be another project's
        return None
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return git.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = CPU_NAMES.read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())

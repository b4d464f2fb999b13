"""What kinds of jobs this worker can do: computed from what is installed, and what its owner wants.

The horde asks with one flag for each group of kinds, so a group is offered when all of it can be
served; a job that is popped and can't be done counts against the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hordelib.files.model import Model
from hordelib.job import control_types, post_processors
from hordelib.job.families import Family, Part
from hordelib.pictures import qr_code
from worker.config.keys import BridgeConfig


@dataclass(frozen=True, slots=True)
class Capability:
    """A group of kinds of jobs. `missing` is why it is not offered although its owner wants it."""

    flag: str  # the horde's, in the body of a pop; the owner's key has the same name
    is_offered: bool
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """The models folder, and files of it that turned out to be broken, which count as missing."""

    folder: Path
    broken: frozenset[Path] = frozenset()


def capabilities(
    config: BridgeConfig, installed: Installed, models: Iterable[Model]
) -> tuple[Capability, ...]:
    """Every group of kinds that the horde has a flag for."""
    families = {model.family for model in models}
    return tuple(
        _capability(flag, bool(getattr(config, flag)), lacks(installed, families))
        for flag, lacks in _LACKS.items()
    )


def _capability(flag: str, is_wanted: bool, missing: str) -> Capability:
    return Capability(flag, is_wanted and not missing, missing if is_wanted else "")


def _nothing(_installed: Installed, _families: set[Family]) -> str:
    return ""


def _lacks_post_processing(installed: Installed, _families: set[Family]) -> str:
    missing = post_processors.missing(installed.folder).values()
    broken = installed.broken & post_processors.named_files(installed.folder)
    return _files((*missing, *_shown(broken, installed)))


def _lacks_control(installed: Installed, families: set[Family]) -> str:
    if not any(Part.control in family.serves for family in families):
        return "no model on offer is of a family that has ControlNets"
    missing = control_types.missing_files(installed.folder)
    paths = {path for files in missing.values() for path in files}
    broken = installed.broken & control_types.files(installed.folder)
    return _files(_shown(paths | broken, installed))


def lacks_sdxl_control(installed: Installed, families: set[Family]) -> str:
    if not any(Part.transparent in family.serves for family in families):
        return "transparent pictures, which the same flag stands for, are not served"
    return lacks_qr(installed, families)


def lacks_qr(installed: Installed, families: set[Family]) -> str:
    files = {qr_code.control_net_file(installed.folder, family.name) for family in families}
    lacking = {
        path
        for path in files
        if path is not None and (path in installed.broken or not path.is_file())
    }
    return _files(_shown(lacking, installed))


def _shown(paths: Iterable[Path], installed: Installed) -> Iterator[str]:
    return (str(path.relative_to(installed.folder)) for path in paths)


def _files(missing: Iterable[str]) -> str:
    names = sorted(set(missing))
    return f"missing in the models folder: {', '.join(names)}" if names else ""


_LACKS: Mapping[str, Callable[[Installed, set[Family]], str]] = {
    "allow_img2img": _nothing,
    "allow_painting": _nothing,
    "allow_post_processing": _lacks_post_processing,
    "allow_controlnet": _lacks_control,
    "allow_sdxl_controlnet": lacks_sdxl_control,
    "allow_lora": _nothing,
}

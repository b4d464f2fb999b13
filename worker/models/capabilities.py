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
from hordelib.job.families import SD1, SD2, Family, Part
from hordelib.job.transparency import FOLDER, LAYER_DIFFUSE
from hordelib.pictures import qr_code
from worker.config.keys import BridgeConfig
from worker.models.files.on_disk import size_text

_LACKING = "missing in the models folder"


@dataclass(frozen=True, slots=True)
class Capability:
    """A group of kinds of jobs. `missing` is why it is not offered although its owner wants it."""

    flag: str  # the horde's, in the body of a pop; the owner's key has the same name
    is_offered: bool
    missing: str = ""

    @property
    def lacks_files(self) -> bool:
        """Whether files are what is missing."""
        return self.missing.startswith(_LACKING)


@dataclass(frozen=True, slots=True)
class Installed:
    """The models folder, and files of it that turned out to be broken, which count as missing."""

    folder: Path
    broken: frozenset[Path] = frozenset()

    def lacks(self, path: Path) -> bool:
        return path in self.broken or not path.is_file()


def capabilities(
    config: BridgeConfig, installed: Installed, models: Iterable[Model]
) -> tuple[Capability, ...]:
    """Every group of kinds that the horde has a flag for."""
    families = {model.family for model in models}
    return tuple(
        _capability(flag, _is_wanted(config, flag), lacks(installed, families))
        for flag, lacks in _LACKS.items()
    )


def _is_wanted(config: BridgeConfig, flag: str) -> bool:
    """Extended control types are ControlNet jobs too."""
    is_control = flag == "allow_extended_controlnet"
    return bool(getattr(config, flag)) and (config.allow_controlnet or not is_control)


def _capability(flag: str, is_wanted: bool, missing: str) -> Capability:
    return Capability(flag, is_wanted and not missing, missing if is_wanted else "")


def _nothing(_installed: Installed, _families: set[Family]) -> str:
    return ""


def _lacks_post_processing(installed: Installed, _families: set[Family]) -> str:
    missing = post_processors.missing(installed.folder).values()
    broken = installed.broken & post_processors.named_files(installed.folder)
    return _files((*missing, *_shown(broken, installed)))


# The horde hands control types out for these, with one flag for both.
_CONTROLLED = (SD1, SD2)


def _lacks_control(installed: Installed, families: set[Family]) -> str:
    if not any(Part.control in family.serves for family in families):
        return "no model on offer is of a family that has ControlNets"
    for family in _CONTROLLED:
        if family in families and Part.control not in family.serves:
            return f"they would come for {family.name} too, which has none here: skip such models"
    return _control_files(installed, control_types.CLASSIC)


def lacks_extended_control(installed: Installed, families: set[Family]) -> str:
    """What keeps this worker from the control types beyond the first nine, "" for nothing.

    The horde hands out all of them, or none: annotators and ControlNets of every type are needed.
    """
    if _lacks_control(installed, families):
        return "the first nine control types, which they go with, are not offered"
    return _control_files(installed, control_types.EXTENDED)


def _control_files(installed: Installed, controls: Iterable[control_types.ControlType]) -> str:
    files = control_types.files_of_all(installed.folder, controls)
    lacking = [file for file in files if file.path in installed.broken or not file.is_there]
    told = _files(_shown((file.path for file in lacking), installed))
    return told and f"{told} ({size_text(sum(file.weights.size_bytes for file in lacking))})"


def lacks_sdxl_control(installed: Installed, families: set[Family]) -> str:
    """The flag stands for QR codes with SDXL and for transparent pictures with any family.

    QR codes with other families come without being asked for, so their files are asked for too.
    """
    if not any(Part.transparent in family.serves for family in families):
        return "no model on offer is of a family that has transparent pictures"
    rows = [LAYER_DIFFUSE[each.name] for each in families if each.name in LAYER_DIFFUSE]
    lacking = [
        (row.name, f"{FOLDER}/{weights.file} ({size_text(weights.size_bytes)})")
        for row in rows
        for weights in row.weights
        if installed.lacks(installed.folder / FOLDER / weights.file)
    ]
    missing = _files([*_lacking_qr(installed, families), *(told for _, told in lacking)])
    names = " ".join(sorted({name for name, _ in lacking}))
    return f"{missing} (models add {names})" if names else missing


def lacks_qr(installed: Installed, families: set[Family]) -> str:
    return _files(_lacking_qr(installed, families))


def _lacking_qr(installed: Installed, families: set[Family]) -> Iterator[str]:
    files = {qr_code.control_net_file(installed.folder, family.name) for family in families}
    return _shown((path for path in files if path and installed.lacks(path)), installed)


def _shown(paths: Iterable[Path], installed: Installed) -> Iterator[str]:
    return (str(path.relative_to(installed.folder)) for path in paths)


def _files(missing: Iterable[str]) -> str:
    names = sorted(set(missing))
    return f"{_LACKING}: {', '.join(names)}" if names else ""


_LACKS: Mapping[str, Callable[[Installed, set[Family]], str]] = {
    "allow_img2img": _nothing,
    "allow_painting": _nothing,
    "allow_post_processing": _lacks_post_processing,
    "allow_controlnet": _lacks_control,
    "allow_extended_controlnet": lacks_extended_control,
    "allow_sdxl_controlnet": lacks_sdxl_control,
    "allow_lora": _nothing,
}

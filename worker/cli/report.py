"""The `report` command: a zip for those who help an owner, without what is secret or personal."""

from __future__ import annotations

import argparse
import io
import json
import platform
import sys
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import cast

import yaml

from hordelib.comfyui.device import default_folder
from hordelib.comfyui.versions import version_in
from hordelib.errors import HordelibError
from hordelib.files.whole_files import write_whole
from worker.cli.check import findings
from worker.cli.exit_codes import ExitCode
from worker.cli.scrubbing import Scrubber
from worker.config.document import CONFIG_FILE
from worker.config.keys import EXPECTS
from worker.config.old_keys import RENAMED, RETIRED
from worker.errors import WorkerError

LOG_BYTES = 2 << 20  # of the end of each log
# Keys whose texts say nothing about a person. Of all others, numbers and true or false are told.
_TOLD_KEYS = frozenset(
    ("models_to_load", "models_to_skip", "vram_to_leave_free", "ram_to_leave_free", "safety")
)
_LEFT_OUT = "(set; left out)"
_ABOUT_THE_OWNER = frozenset(("api key", "worker name"))  # of check's findings


def report(options: argparse.Namespace) -> int:
    """List what the zip holds, then write it; where somebody is there, they are asked before."""
    now = time.strftime("%Y%m%d-%H%M%S")
    target = options.output or options.home / f"dreamer-report-{now}.zip"
    print("looking at this machine, which takes some seconds …", file=sys.stderr)
    parts = dict(_parts(options.home))
    print(f"{target} will hold:")
    for name, text in parts.items():
        print(f"  {name:22}{len(text.encode()) / 1000:8.1f} kB")
    print(
        "Keys, tokens, passwords, names, prompts and addresses are left out. Look into the file\n"
        "before you give it to anybody."
    )
    if not options.yes and sys.stdin.isatty() and not _is_agreed():
        print("nothing was written")
        return ExitCode.OK
    write_whole(target, _packed(parts))
    print(f"{target} was written")
    return ExitCode.OK


def _is_agreed() -> bool:
    try:
        return input("Write it? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def _packed(parts: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return packed.getvalue()


def _parts(home: Path) -> Iterator[tuple[str, str]]:
    config_file = home / CONFIG_FILE
    given = _given(config_file)
    scrubber = Scrubber.of(given or {}, home)
    yield "versions.txt", scrubber.text("\n".join(_versions()))
    yield "check.txt", scrubber.text("\n".join(_check(home, config_file)))
    yield "configuration.yaml", scrubber.text(_configuration(config_file, given))
    for log in sorted((home / "logs").glob("*.log*")):
        if log.is_file() and not log.is_symlink():
            lines = scrubber.log(_end_of(log))
            yield f"logs/{log.name}", "".join(f"{line}\n" for line in lines)


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read(LOG_BYTES).decode("utf-8", "replace")


def _given(config_file: Path) -> dict[object, object] | None:
    """What the file says, checked or not; None where it is no mapping."""
    try:
        given: object = yaml.safe_load(config_file.read_text("utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return cast(dict[object, object], given) if isinstance(given, dict) else None


def _versions() -> Iterator[str]:
    yield f"python {platform.python_version()} on {platform.platform()}"
    yield f"ComfyUI {version_in(default_folder()) or 'not found'}"
    packages = {each.name.lower(): each.version for each in distributions() if each.name}
    yield from (f"{name} {version}" for name, version in sorted(packages.items()))


def _check(home: Path, config_file: Path) -> Iterator[str]:
    try:
        for finding in findings(home, config_file):
            is_personal = finding.name in _ABOUT_THE_OWNER
            detail = "(left out)" if is_personal else finding.detail
            yield f"{finding.verdict:8}{finding.name:26}{detail}"
            if finding.remedy and not is_personal:
                yield f"{'':34}remedy: {finding.remedy}"
    except (WorkerError, HordelibError, OSError) as error:
        yield f"check could not go on: {error}"


def _configuration(config_file: Path, given: dict[object, object] | None) -> str:
    if given is None:
        why = "it can't be read as YAML" if config_file.exists() else "there is none"
        return f"# {CONFIG_FILE}: {why}\n"
    told = {str(key): _told(str(key), value) for key, value in given.items() if _is_known(key)}
    unknown = len(given) - len(told)
    note = f"# {unknown} unknown keys are left out\n" if unknown else ""
    return note + "".join(f"{key}: {json.dumps(value)}\n" for key, value in told.items())


def _is_known(key: object) -> bool:
    return key in EXPECTS or key in RENAMED or key in RETIRED


def _told(key: str, value: object) -> object:
    is_harmless = value is None or isinstance(value, (bool, float))
    if is_harmless or (isinstance(value, int) and abs(value) < 10**6):
        return value
    is_told = key in _TOLD_KEYS
    if isinstance(value, list):
        items = cast(list[object], value)
        return [str(each) if is_told else _LEFT_OUT for each in items]
    return str(value) if is_told else _LEFT_OUT

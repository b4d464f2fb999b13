"""The newest release of this worker, as the project's page at GitHub tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter

from worker.config.keys import BridgeConfig
from worker.config.values import PROJECT_URL
from worker.net.addresses import is_this_machine
from worker.net.cached_documents import Documents, Source
from worker.net.untrusted import Label, read_json
from worker.version import VERSION

# GitHub's API, "Get the latest release": neither drafts nor pre-releases.
LATEST = f"{PROJECT_URL.replace('//github.com/', '//api.github.com/repos/')}/releases/latest"
DAY = 86400.0
_NUMBERS = re.compile(r"v?(\d{1,6}(?:\.\d{1,6}){0,3})")


@dataclass(frozen=True, slots=True)
class Release:
    version: str
    link: str = f"{PROJECT_URL}/releases"


class _Latest(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    tag_name: Label


_LATEST = TypeAdapter(_Latest)


def newer_release(
    documents: Documents, address: str = LATEST, than: str = VERSION
) -> Release | None:
    """None where the newest one is not newer `than` that. Asked for once a day at most.

    Raises DocumentMissing.
    """
    newest = documents.read(Source("release", (address,), _version, DAY)).value
    return Release(newest) if _numbers(newest) > _numbers(than) else None


def news(config: BridgeConfig, documents: Documents) -> Release | None:
    """The same for an owner: nobody is asked where `auto_update` forbids it, or for a horde on this
    machine. Raises DocumentMissing."""
    if config.now.auto_update == "never" or is_this_machine(config.horde_url):
        return None
    return newer_release(documents, LATEST)


def _version(text: str) -> str:
    """Raises ValueError where the tag is no version."""
    found = _NUMBERS.fullmatch(read_json(_LATEST, text.encode()).tag_name)
    if found is None:
        raise ValueError("a tag that is no version")
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in version.split("."))
    return numbers + (0,) * (4 - len(numbers))

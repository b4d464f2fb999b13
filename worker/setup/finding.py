"""What is said of one prerequisite, by `check` and by the set-up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    ok = "ok"
    failed = "FAILED"
    warning = "WARNING"
    skipped = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One prerequisite. `remedy` says what the owner does about one that is not ok."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Verdict.ok, detail)


def failed(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name, Verdict.failed, detail, remedy)

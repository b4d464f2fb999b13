"""What a peer's process is told and what it answers: a line of JSON each way.

Standard library only, and nothing else of Dreamer: a peer's environment may have other packages of
our names.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO


@dataclass(frozen=True, slots=True)
class Setup:
    """What a peer has to know before the first job. `variant` tells apart peers of one module."""

    comfyui: str  # ComfyUI's folder
    checkpoints: str  # folder of the checkpoints
    loras: str  # folder of the LoRAs
    scratch: str = ""  # an empty folder, this peer's own
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One job: `images` pictures of a prompt. Files are named without their folders."""

    checkpoint: str
    prompt: str
    negative_prompt: str
    seed: int
    width: int  # pixels
    height: int
    steps: int
    cfg: float = 7.0
    images: int = 1
    lora: str = ""  # none


@dataclass(frozen=True, slots=True)
class Answer:
    """What a turn came to: its seconds, and the pictures of all jobs in their order.

    A picture is rows of RGB bytes, or a PNG file. `reads` counts the checkpoints that were read
    since the start, where the peer knows. `cpu_seconds` are measured from outside.
    """

    seconds: float
    pictures: tuple[bytes, ...]
    reads: int | None = None
    cpu_seconds: float = 0.0


class Peer(Protocol):
    """A program that makes pictures."""

    @property
    def reads(self) -> int | None:
        """How many checkpoints it has read."""
        ...

    def make(self, jobs: Sequence[Job]) -> list[bytes]:
        """The pictures of jobs that all wait at once."""
        ...


class PeerFailed(Exception):
    """A peer can't go on. One line that says why."""


class CannotDo(PeerFailed):
    """A peer can't do these jobs, but others."""


def to_line(jobs: Sequence[Job]) -> str:
    return json.dumps([asdict(job) for job in jobs]) + "\n"


def answer_of(line: str) -> Answer:
    """Raises CannotDo or PeerFailed where the line says so, or nothing that we understand."""
    try:
        told = json.loads(line)
        if "error" in told:
            raise (CannotDo if told["goes_on"] else PeerFailed)(told["error"])
        pictures = tuple(base64.b64decode(picture) for picture in told["pictures"])
        return Answer(told["seconds"], pictures, told["reads"])
    except (ValueError, KeyError, TypeError) as error:
        raise PeerFailed(f"an answer that is none: {line[:80]!r}") from error


def serve(start: Callable[[Setup], AbstractContextManager[Peer]]) -> None:
    """Be a peer until standard input ends. Errors are told; all but CannotDo end it, too."""
    answers = _own_standard_output()
    try:
        with start(Setup(**json.loads(sys.argv[1]))) as peer:
            for line in sys.stdin:
                _say(answers, _answer(peer, [Job(**job) for job in json.loads(line)]))
    except Exception as error:
        _say(answers, {"error": _told(error), "goes_on": False})
        raise


def _answer(peer: Peer, jobs: Sequence[Job]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        made = peer.make(jobs)
    except CannotDo as error:
        return {"error": str(error), "goes_on": True}
    seconds = time.perf_counter() - started
    pictures = [base64.b64encode(picture).decode() for picture in made]
    return {"seconds": seconds, "pictures": pictures, "reads": peer.reads}


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _own_standard_output() -> TextIO:
    """Standard output, from now on only ours: what libraries print goes to standard error."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "w", encoding="utf-8")


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def path_in(folder: str, name: str) -> str:
    return str(Path(folder) / name)

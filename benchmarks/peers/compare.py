"""The same work on ours and on other programs: seconds, ratios to one of them, memory.

Every peer is a process of its own. All are alive at once and take turns, in an order that rotates
with each round, so that whatever else the machine does hits all of them. Ratios are those of one
round, to ComfyUI's executor where it takes part; the first round of a work warms up.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.measure.model_files import MODELS
from benchmarks.peers.contender import Contender
from benchmarks.peers.protocol import Answer, Job, Setup
from benchmarks.peers.roster import BASE, PEERS, Peer
from benchmarks.peers.works import CHECKPOINTS, LORA, QUICK, WORKS, Work
from benchmarks.results.frame import Bench, positive
from hordelib.comfyui.device import default_folder
from hordelib.demo_model import ensure_checkpoint, ensure_lora

START = Work("from the start of the process to the first picture")
PNG = b"\x89PNG"
REPEATS, QUICK_REPEATS = 5, 2
HORDE_ENGINE = "horde-engine"  # what most workers run: ratios to it are told, too


@dataclass(frozen=True, slots=True)
class Row:
    """One work on one peer. Figures are None where there are none; `error` says why it failed.

    Of the ratios to `base`, each within one round: median, lowest and highest.
    """

    work: str
    peer: str
    repeats: int = 0
    seconds: float | None = None  # a job, median
    cpu_seconds: float | None = None  # of all cores for a job, median
    ratio: float | None = None
    lowest_ratio: float | None = None
    highest_ratio: float | None = None
    horde_engine_ratio: float | None = None  # median of the ratios to horde-engine
    peak_bytes: int | None = None  # of its largest process, while it did this work
    reads: int | None = None  # of checkpoints, after the first round
    most_pixel_difference: int | None = None  # of 255, from `base`
    base: str = ""
    error: str = ""


def base_of(peers: Sequence[Peer]) -> Peer:
    """To whom ratios are: ComfyUI's executor, or the first peer where it takes no part."""
    return next((peer for peer in peers if peer.name == BASE), peers[0])


def measure(
    peers: Sequence[Peer], works: Sequence[Work], repeats: int, starts: int
) -> Iterator[Row]:
    """A row for each peer of each work, once the work is done.

    Each process is started `starts` times, and each work done `repeats` times; of both the first
    time does not count, unless it is the only one.
    """
    contenders = [Contender(peer) for peer in peers]
    numbers = itertools.count()  # no job comes twice: caches would still have what it made
    with _files() as (files, scratch), ExitStack() as ends:
        for contender in contenders:
            ends.callback(contender.close)
        turns = [START.turn(next(numbers)) for _ in range(starts)]
        _start(contenders, turns, files, scratch)
        yield from _rows(START, turns, contenders)
        for work in works:
            turns = [work.turn(next(numbers)) for _ in range(repeats)]
            _do(contenders, turns)
            yield from _rows(work, turns, contenders)


Turn = Sequence[Job]


def _start(
    contenders: Sequence[Contender], turns: Sequence[Turn], files: Setup, scratch: Path
) -> None:
    """The processes of the last round stay."""
    for number, jobs in enumerate(turns):
        for contender in _rotated(contenders, number):
            contender.start(files, scratch / f"{contender.peer.name}-{number}", jobs)


def _do(contenders: Sequence[Contender], turns: Sequence[Turn]) -> None:
    for contender in contenders:
        contender.begin()
    for number, jobs in enumerate(turns):
        for contender in _rotated(contenders, number):
            contender.take(jobs)


def _rotated(contenders: Sequence[Contender], number: int) -> list[Contender]:
    first = number % len(contenders)
    return [*contenders[first:], *contenders[:first]]


def _rows(work: Work, turns: Sequence[Turn], contenders: Sequence[Contender]) -> Iterator[Row]:
    base = base_of([contender.peer for contender in contenders]).name
    theirs = {each.peer.name: each.answers for each in contenders if not each.error}
    for contender in contenders:
        name = contender.peer.name
        if contender.error:
            yield Row(work.name, name, base=base, error=contender.error)
        else:
            yield _row(work, turns, contender, base, theirs)


def _row(
    work: Work,
    turns: Sequence[Turn],
    contender: Contender,
    base: str,
    theirs: Mapping[str, Sequence[Answer]],
) -> Row:
    """`theirs`: the answers of all peers that could do it, by name."""
    answers = _counted(contender.answers)
    ratios = _ratios(answers, theirs.get(base, ()))
    to_horde_engine = _ratios(answers, theirs.get(HORDE_ENGINE, ()))
    return Row(
        work=work.name,
        peer=contender.peer.name,
        repeats=len(answers),
        seconds=median(each.seconds for each in answers) / len(turns[0]),
        cpu_seconds=median(each.cpu_seconds for each in answers) / len(turns[0]),
        ratio=median(ratios) if ratios else None,
        lowest_ratio=min(ratios, default=None),
        highest_ratio=max(ratios, default=None),
        horde_engine_ratio=median(to_horde_engine) if to_horde_engine else None,
        peak_bytes=contender.peak_bytes(),
        reads=_reads(contender.answers),
        most_pixel_difference=_most_difference(
            work, turns, contender.answers, theirs.get(base, ())
        ),
        base=base,
    )


def _ratios(answers: Sequence[Answer], others: Sequence[Answer]) -> list[float]:
    """Round by round; none where the other one has none. `answers` are those that count."""
    pairs = zip(answers, _counted(others), strict=False)
    return [each.seconds / other.seconds for each, other in pairs]


def _counted(answers: Sequence[Answer]) -> Sequence[Answer]:
    return answers[1:] or answers


def _reads(answers: Sequence[Answer]) -> int | None:
    """Of checkpoints, after the first time."""
    first, last = answers[0].reads, answers[-1].reads
    return None if first is None or last is None else last - first


def _most_difference(
    work: Work, turns: Sequence[Turn], answers: Sequence[Answer], base: Sequence[Answer]
) -> int | None:
    """Of the first picture of each job: what the others of a batch start from differs by design."""
    if not base:
        return None
    return max(
        int(np.abs(_pixels(one, job) - _pixels(other, job)).max())
        for jobs, answer, its in zip(turns, answers, base, strict=True)
        for job, one, other in zip(
            jobs, answer.pictures[:: work.images], its.pictures[:: work.images], strict=True
        )
    )


def _pixels(picture: bytes, job: Job) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    if picture.startswith(PNG):
        with Image.open(io.BytesIO(picture)) as opened:
            picture = opened.convert("RGB").tobytes()
    shape = (job.height, job.width, 3)
    return np.frombuffer(picture, np.uint8).reshape(shape).astype(np.int16)


@contextmanager
def _files() -> Generator[tuple[Setup, Path]]:
    """The demo model as two checkpoints, its LoRA, and a folder for whatever peers write."""
    checkpoint, lora = ensure_checkpoint(MODELS), ensure_lora(MODELS)
    with tempfile.TemporaryDirectory(prefix=".compare-", dir=MODELS) as name:
        folder = Path(name)
        checkpoints, loras = folder / "checkpoints", folder / "loras"
        copies = {checkpoints / each: checkpoint for each in CHECKPOINTS} | {loras / LORA: lora}
        for copy, file in copies.items():
            copy.parent.mkdir(exist_ok=True)
            _link(file, copy)
        yield Setup(str(default_folder()), str(checkpoints), str(loras)), folder


def _link(file: Path, copy: Path) -> None:
    """The same file under another name, for programs that tell files apart by their names."""
    with suppress(OSError):
        os.link(file, copy)
        return
    shutil.copyfile(file, copy)


def _peers(text: str) -> list[Peer]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PEERS)}")
    return [PEERS[name] for name in dict.fromkeys(names)]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peers",
        type=_peers,
        metavar="A,B",
        default=list(PEERS.values()),
        help=f"which of {', '.join(PEERS)} (all)",
    )
    parser.add_argument("--repeats", type=positive, help="rounds of each work (5; quick: 2)")


def _works(options: argparse.Namespace) -> tuple[Work, ...]:
    return QUICK if options.quick else WORKS


def _measured(options: argparse.Namespace) -> Iterator[Row]:
    repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    starts = 1 if options.quick else repeats + 1
    print(f"ratios are to {base_of(options.peers)}", file=sys.stderr)
    yield from measure(options.peers, _works(options), repeats + 1, starts)


BENCH = Bench(
    name="compare",
    help="the same work on ours, on ComfyUI, on horde-engine 2.22.2 and on diffusers",
    add_arguments=_add_arguments,
    rows=_measured,
    count=lambda options: len(options.peers) * (1 + len(_works(options))),
    columns=(
        *("work", "peer", "seconds", "base", "ratio", "lowest_ratio", "highest_ratio"),
        *(
            "horde_engine_ratio",
            "cpu_seconds",
            "peak_bytes",
            "reads",
            "most_pixel_difference",
            "error",
        ),
    ),
)

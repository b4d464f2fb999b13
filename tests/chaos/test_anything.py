"""A worker gets at random what the horde hands out at gate 18, and faults nothing of it.

`pytest tests/chaos/test_anything.py --jobs 12500 --seed 3` asks for 500 images.
"""

from __future__ import annotations

import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from PIL import Image

from hordelib.job.samplers import ADAPTIVE
from tests.chaos.anything import Anything
from tests.chaos.customer import Customer
from tests.chaos.monkey import World
from tests.chaos.play import end
from tests.chaos.service import Service
from tests.conftest import SHOWN
from worker.demo.model_files import lay_out
from worker.demo.run import REFERENCE
from worker.sandbox import Books, GenerationEntry, RequestEntry, Sandbox, State

SHARE = 25  # of --jobs, one in so many
START_SECONDS, SECONDS_PER_IMAGE = 180.0, 5.0  # a busy machine; only a failure takes so long
KINDS = (
    "hires_fix",
    "tiling",
    "loras",
    "tis",
    "post_processing",
    "workflow",
    "transparent",
    "control_type",
    "return_control_map",
)
BATCH_INDEX = "batch_index"
UPSCALED = 4  # by the demo's upscaler


def test_nothing_of_gate_18_is_faulted(
    tmp_path: Path,
    checkpoint: Path,
    jobs: int,
    seed: int,
    record_property: Callable[[str, object], None],
):
    images = jobs // SHARE
    with Sandbox(REFERENCE, limits={}) as sandbox:
        lay_out(tmp_path / "models", checkpoint)
        arguments = ("-P", "-m", "tests.chaos.anything_worker", str(tmp_path), sandbox.url)
        service = Service([sys.executable, *arguments], tmp_path)
        world = World(sandbox, service, random.Random(seed))
        anything = Anything(random.Random(f"orders {seed}"))
        customer = Customer(sandbox, random.Random(seed), anything.order, world.bear)
        began = time.monotonic()
        with closing(customer), closing(world.service):
            world.service.start()
            customer.ask_for(images)
            end(world, START_SECONDS + SECONDS_PER_IMAGE * images)
        books = sandbox.books()
        record_property(SHOWN, table(books, time.monotonic() - began))
        wrongs = list(wrong(books, sandbox.image))
        assert not wrongs, "\n".join([*wrongs, world.service.last_words()])
        assert len(books.generations) >= images - sum(row.n for row in cancelled(books))
        assert world.service.complaints() == []


def cancelled(books: Books) -> list[RequestEntry]:
    return [row for row in books.requests if row.cancelled]


def wrong(books: Books, image: Callable[[str], bytes | None]) -> Iterator[str]:
    """A line for each image that was not made as it was asked for."""
    for row in books.generations:
        request = books.request(row.request_id)
        if request.cancelled:
            continue
        for told in complaints(row, request, image(row.id)):
            yield f"{told}: {request.body.params.model_dump(exclude_defaults=True)}"


def complaints(row: GenerationEntry, request: RequestEntry, webp: bytes | None) -> Iterator[str]:
    params = request.body.params
    if row.state is not State.ok or webp is None:
        yield f"{row.state} {row.gen_metadata}"
        return
    with Image.open(io.BytesIO(webp)) as picture:
        times = UPSCALED if params.post_processing else 1
        if picture.size != (times * params.width, times * params.height):
            yield f"a picture of {picture.size}"
    for note in row.gen_metadata:
        if note["type"] != BATCH_INDEX and not is_expected(note, params.sampler_name):
            yield f"told the client {note}"


def is_expected(note: Mapping[str, str], sampler: str) -> bool:
    """Whether the horde's contract of this sampler has it disclosed."""
    return sampler == ADAPTIVE.name and "iterations" in note.get("ref", "")


def kinds(request: RequestEntry) -> Iterator[str]:
    """What is asked for beside a picture of a prompt."""
    yield from (name for name in KINDS if getattr(request.body.params, name))
    if request.body.source_image is not None:
        yield request.body.source_processing


def table(books: Books, seconds: float) -> str:
    """How many images of which fate, by sampler and by schedule, and how many had which note."""
    params = {row.id: row.body.params for row in books.requests}
    rows = [params[row.request_id] for row in books.generations]
    notes = [note for row in books.generations for note in row.gen_metadata]
    counts = {
        "states": Counter(str(row.state) for row in books.generations),
        "samplers": Counter(each.sampler_name for each in rows),
        "schedules": Counter(each.scheduler or f"karras {each.karras}" for each in rows),
        "kinds": Counter(kind for row in books.requests for kind in kinds(row)),
        "notes": Counter(note.get("ref", note["value"]) for note in notes),
    }
    told = [f"{name}: {dict(sorted(each.items()))}" for name, each in counts.items()]
    return "\n".join([f"{len(books.requests)} requests in {seconds:.0f} s", *told])

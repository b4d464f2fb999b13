"""Many jobs, and everything that can happen to a worker meanwhile. The horde's books are the judge.

`pytest tests/chaos --jobs 10000 --seed 3` does more, and something else. What is asked for and what
goes wrong is drawn from the seed; what meets what depends on the machine.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from hordelib import Engine
from hordelib.job.families import SD1
from hordelib.job.image_files import decode
from hordelib.job.images import SourceImage
from tests.chaos import orders
from tests.chaos.customer import Customer
from tests.chaos.expected import expected_webp, is_censored
from tests.chaos.figures import bytes_of
from tests.chaos.gallery import Gallery, real_order
from tests.chaos.monkey import NAME, REAL, VOLUME, World
from tests.chaos.orders import IMPOSSIBLE, UNREADABLE_SEED
from tests.chaos.play import Script, play
from tests.chaos.service import Service
from tests.chaos.verdict import Fate, Judgement
from tests.conftest import SHOWN
from tests.support.family_files import HEADERS, completed, write_header
from tests.support.sandbox_client import MODEL, MODELS, WORKER_KEY
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import read_totals
from worker.sandbox import GenerationEntry, ReferenceModel, RequestEntry, Sandbox, Timing
from worker.service.state_folder import is_taken

PLAIN, SPARE = "Plain Model", "Spare Model"
VOLUME_MODELS = {name: ReferenceModel("stable diffusion 1") for name in (PLAIN, SPARE)}
DROP_SECONDS = 1  # how long the horde bears a grudge: chaos drops more than any worker should
RECOVERY_SECONDS = 90.0  # what a killed worker had is made again: its engine starts first
DELIVERED_SHARE = 0.8  # of what can be: the horde itself gives a request up after a few drops
STATE_BYTES = 1 << 20
STATE_BYTES_PER_IMAGE = 1 << 10  # rows of the ledger are kept for an hour
REAL_SHARE = 5  # of the jobs, one in so many is drawn by ComfyUI


@dataclass
class Stage:
    """Where a run takes place. `show` tells at the end of the test run."""

    folder: Path
    jobs: int
    seed: int
    show: Callable[[str], None]

    def write_home(self, sandbox: Sandbox, more: str) -> Path:
        home = self.folder / "home"
        home.mkdir()
        (home / "bridgeData.yaml").write_text(
            f"horde_url: {sandbox.url}\napi_key: {WORKER_KEY}\ndreamer_name: {NAME}\n"
            f"ram_to_leave_free: 256 MiB\n{more}",
            "utf-8",
        )
        return home

    def draw(self, what: str) -> random.Random:
        return random.Random(f"{what} {self.seed}")


@pytest.fixture
def stage(
    tmp_path: Path, jobs: int, seed: int, record_property: Callable[[str, object], None]
) -> Stage:
    return Stage(tmp_path, jobs, seed, lambda text: record_property(SHOWN, text))


def test_chaos_in_volume(stage: Stage):
    """Stand-ins for engine and judge, which fail as well."""
    timing = Timing(min_ttl_seconds=30, cleaner_seconds=1, drop_window_seconds=DROP_SECONDS)
    with Sandbox(VOLUME_MODELS, timing=timing, limits={}) as sandbox:
        home = stage.write_home(
            sandbox,
            f"models_to_load: ['{PLAIN}', '{SPARE}']\n"
            "preload_timeout: 15\ninference_step_timeout: 5\nprocess_timeout: 30\n",
        )
        checkpoints = home / "models" / "compvis"
        checkpoints.mkdir(parents=True)
        for name in VOLUME_MODELS:
            write_header(
                checkpoints / f"{name}.safetensors",
                completed(SD1, HEADERS["stable diffusion 1"]),
                prefix="",
            )
        arguments = ("-P", "-m", "tests.chaos.worker_process", str(home), str(stage.seed))
        world = World(
            sandbox,
            Service([sys.executable, *arguments], home),
            stage.draw("troubles"),
            spare_model=checkpoints / f"{SPARE}.safetensors",
        )
        asked = stage.draw("orders")
        customer = Customer(
            sandbox, asked, lambda: orders.order(asked, tuple(VOLUME_MODELS)), world.bear
        )
        complaint = StandIns(sandbox).complaint
        with closing(customer), closing(world.service):
            judgement = play(world, customer, Script(VOLUME, stage.jobs, 3), complaint)
            assert_right(judgement, world, stage.show)


def test_chaos_with_real_pictures(stage: Stage, engine: Engine, models: Path, checkpoint: Path):
    """The worker as it is, with the demo model: each picture is the one that was asked for."""
    timing = Timing(min_ttl_seconds=60, cleaner_seconds=1, drop_window_seconds=DROP_SECONDS)
    gallery = Gallery.painted_by(engine, checkpoint)
    with Sandbox(MODELS, timing=timing, limits={}) as sandbox:
        home = stage.write_home(sandbox, f"models_to_load: ['{MODEL}']\n")
        (home / "models").symlink_to(models)
        command = [sys.executable, "-P", "-m", "worker", "--home", str(home), "run"]
        world = World(sandbox, Service(command, home), stage.draw("troubles"))
        asked = stage.draw("orders")
        customer = Customer(sandbox, asked, lambda: real_order(asked), world.bear)
        with closing(customer), closing(world.service):
            judgement = play(
                world,
                customer,
                Script(REAL, stage.jobs // REAL_SHARE, 15),
                lambda row, request: gallery.complaint(row, request, sandbox.image(row.id)),
            )
            assert_right(judgement, world, stage.show)


def assert_right(judgement: Judgement, world: World, show: Callable[[str], None]) -> None:
    """Show what the books say, and fail where they speak against the worker."""
    done = ", ".join(f"{name} {times}" for name, times in sorted(world.done.items()))
    show("\n".join([*world.figures, done, judgement.table()]))
    books = world.sandbox.books()
    wrongs = [str(wrong) for wrong in judgement.wrongs(books)]
    assert not wrongs, "\n".join([judgement.table(), *wrongs, world.service.last_words()])
    assert judgement.recovery_seconds <= RECOVERY_SECONDS
    possible = sum(row.n for row in books.requests if is_possible(row))
    assert len(judgement.of(Fate.submitted)) >= DELIVERED_SHARE * possible
    assert world.service.leftovers() == []
    assert world.service.complaints() == []
    assert not is_taken(world.state_folder)
    most_bytes = STATE_BYTES + STATE_BYTES_PER_IMAGE * len(judgement.fates)
    assert bytes_of(world.state_folder) <= most_bytes
    assert read_totals(world.state_folder / LEDGER).open == 0, "the journal is not empty"


def is_possible(request: RequestEntry) -> bool:
    body = request.body
    is_readable = body.params.seed != UNREADABLE_SEED
    return is_readable and IMPOSSIBLE not in body.prompt and not request.cancelled


class StandIns:
    """Knows what a stand-in engine has to draw for each request of the sandbox."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox

    def complaint(self, row: GenerationEntry, request: RequestEntry) -> str:
        """What is wrong with a delivered picture, to the byte; "" for nothing."""
        source = self._source(row.request_id)
        webp = expected_webp(request.body, row.model, row.asked_seed, source)
        if row.upload_sha256 != hashlib.sha256(webp).hexdigest():
            return "another picture than the one that was asked for"
        if row.seed != row.asked_seed:
            return f"seed {row.seed} instead of {row.asked_seed}"
        if row.censored != is_censored(request.body):
            return f"censored: {row.censored}"
        return ""

    def _source(self, request_id: str) -> SourceImage | None:
        stored = self._sandbox.horde.store.get("sources", f"{request_id}_src.webp")
        return decode(stored.data).image if stored else None

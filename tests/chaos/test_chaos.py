"""Many jobs, and everything that can happen to a worker meanwhile. The horde's books are the judge.

`pytest tests/chaos --jobs 10000 --seed 3` does more, and something else. What is asked for and what
goes wrong is drawn from the seed; what meets what depends on the machine.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from hordelib.images import SourceImage
from hordelib.source_images import decode
from tests.chaos import orders
from tests.chaos.customer import Customer
from tests.chaos.monkey import NAME, VOLUME, World
from tests.chaos.orders import IMPOSSIBLE, UNREADABLE_SEED
from tests.chaos.play import play
from tests.chaos.service import Service
from tests.chaos.stand_in import expected_webp, is_censored
from tests.chaos.verdict import Fate, Judgement
from tests.family_files import HEADERS, write_header
from tests.sandbox_client import WORKER_KEY
from worker.sandbox import GenerationEntry, ReferenceModel, RequestEntry, Sandbox, Timing

PLAIN, SPARE = "Plain Model", "Spare Model"
MODELS = {name: ReferenceModel("stable diffusion 1") for name in (PLAIN, SPARE)}
TIMING = Timing(min_ttl_seconds=30, cleaner_seconds=1, drop_window_seconds=1)
RECOVERY_SECONDS = 60.0
DELIVERED_SHARE = 0.8  # of what can be: the horde itself gives a request up after a few drops
STATE_BYTES = 1 << 20


@pytest.fixture
def sandbox() -> Generator[Sandbox]:
    with Sandbox(MODELS, timing=TIMING, limits={}) as running:
        yield running


def write_home(folder: Path, sandbox: Sandbox, more: str = "") -> Path:
    folder.mkdir()
    (folder / "bridgeData.yaml").write_text(
        f"horde_url: {sandbox.url}\napi_key: {WORKER_KEY}\ndreamer_name: {NAME}\n{more}", "utf-8"
    )
    return folder


def test_chaos_in_volume(
    sandbox: Sandbox,
    tmp_path: Path,
    jobs: int,
    seed: int,
    capsys: pytest.CaptureFixture[str],
):
    more = (
        f"models_to_load: ['{PLAIN}', '{SPARE}']\n"
        "preload_timeout: 15\ninference_step_timeout: 5\nprocess_timeout: 30\n"
    )
    home = write_home(tmp_path / "home", sandbox, more)
    checkpoints = home / "models" / "compvis"
    checkpoints.mkdir(parents=True)
    files = {name: checkpoints / f"{name}.safetensors" for name in MODELS}
    for file in files.values():
        write_header(file, HEADERS["stable diffusion 1"])
    command = [sys.executable, "-P", "-m", "tests.chaos.worker_process", str(home), str(seed)]
    asked = random.Random(f"orders {seed}")
    customer = Customer(sandbox, asked, lambda: orders.order(asked, tuple(MODELS)))
    service = Service(command, home)
    world = World(sandbox, service, files[SPARE], random.Random(f"troubles {seed}"))
    try:
        judgement = play(world, customer, VOLUME, jobs, Gallery(sandbox).complaint)
        assert_right(judgement, world, capsys)
    finally:
        service.end()
        customer.close()


def assert_right(judgement: Judgement, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Show what the books say, and fail where they speak against the worker."""
    done = ", ".join(f"{name} {times}" for name, times in sorted(world.done.items()))
    with capsys.disabled():
        print(f"\n{done}\n{judgement.table()}")
    books = world.sandbox.books()
    assert judgement.lost == (), [books.generation(id) for id in judgement.lost]
    assert judgement.doubled == ()
    assert judgement.wrong_pictures == ()
    assert judgement.recovery_seconds <= RECOVERY_SECONDS
    possible = sum(row.n for row in books.requests if is_possible(row))
    assert len(judgement.of(Fate.submitted)) >= DELIVERED_SHARE * possible
    assert world.service.leftovers() == []
    assert bytes_of(world.state_folder) <= STATE_BYTES


def is_possible(request: RequestEntry) -> bool:
    body = request.body
    is_readable = body.params.seed != UNREADABLE_SEED
    return is_readable and IMPOSSIBLE not in body.prompt and not request.cancelled


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Gallery:
    """Knows what each picture of the sandbox has to be, by what its request says."""

    def __init__(self, sandbox: Sandbox):
        self._sandbox = sandbox

    def complaint(self, row: GenerationEntry, request: RequestEntry) -> str:
        """What is wrong with a delivered picture; "" for nothing."""
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

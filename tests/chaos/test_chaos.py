"""Many jobs, and everything that can happen to a worker meanwhile. The horde's books are the judge.

`pytest tests/chaos --jobs 10000 --seed 3` does more, and something else. What is asked for and what
goes wrong is drawn from the seed; what meets what depends on the machine.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from hordelib import Engine
from hordelib.job.families import SD1
from hordelib.job.image_files import decode
from hordelib.job.images import SourceImage
from tests.chaos import form_orders, orders, text_orders
from tests.chaos.customer import Customer
from tests.chaos.expected import expected_webp, is_censored
from tests.chaos.figures import bytes_of
from tests.chaos.form_orders import FormOrder
from tests.chaos.gallery import Gallery, real_order
from tests.chaos.monkey import ENGINES, NAME, REAL, VOLUME, World
from tests.chaos.orders import IMPOSSIBLE, UNREADABLE_SEED
from tests.chaos.play import Script, play
from tests.chaos.service import Service
from tests.chaos.text_orders import ShakyServer, TextOrder
from tests.chaos.verdict import Judgement
from tests.conftest import SHOWN
from tests.support.family_files import HEADERS, completed, write_header
from tests.support.sandbox_client import MODEL, MODELS, WORKER_KEY
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.totals import read_totals
from worker.sandbox import GenerationEntry, ReferenceModel, RequestEntry, Sandbox, State, Timing
from worker.service.state_folder import is_taken

PLAIN, SPARE = "Plain Model", "Spare Model"
VOLUME_MODELS = {name: ReferenceModel("stable diffusion 1") for name in (PLAIN, SPARE)}
DROP_SECONDS = 1  # how long the horde bears a grudge: chaos drops more than any worker should
RECOVERY_SECONDS = 90.0  # what a killed worker had is made again: its engine starts first
DELIVERED_SHARE = 0.8  # of what can be: the horde itself gives a request up after a few drops
TEXTS_DELIVERED_SHARE = 0.7  # of the requests; their server fails, too
STATE_BYTES = 1 << 20
STATE_BYTES_PER_IMAGE = 1 << 10  # rows of the ledger are kept for an hour
FORMS_SHARE, TEXTS_SHARE = 0.25, 0.25  # of the requests
FORM_SECONDS = 60  # less than a horde gives: what a kill has lost on its way is handed out again
ENGINES_SHARE = 5  # one in so many of the jobs, for several engines in one worker
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

    def write_stand_ins_home(self, sandbox: Sandbox, more: str = "") -> Path:
        """With the files of VOLUME_MODELS, for children that read only their headers."""
        home = self.write_home(
            sandbox,
            f"models_to_load: ['{PLAIN}', '{SPARE}']\n"
            "preload_timeout: 15\ninference_step_timeout: 5\nprocess_timeout: 30\n" + more,
        )
        checkpoints = home / "models" / "compvis"
        checkpoints.mkdir(parents=True)
        for name in VOLUME_MODELS:
            write_header(
                checkpoints / f"{name}.safetensors",
                completed(SD1, HEADERS["stable diffusion 1"]),
                prefix="",
            )
        return home

    def stand_ins(self, home: Path, engines: int) -> Service:
        arguments = ("tests.chaos.worker_process", home, self.seed, engines)
        return Service([sys.executable, "-P", "-m", *map(str, arguments)], home)

    def draw(self, what: str) -> random.Random:
        return random.Random(f"{what} {self.seed}")


@pytest.fixture
def stage(
    tmp_path: Path, jobs: int, seed: int, record_property: Callable[[str, object], None]
) -> Stage:
    return Stage(tmp_path, jobs, seed, lambda text: record_property(SHOWN, text))


@pytest.mark.filterwarnings("ignore:Image.Image.getdata:DeprecationWarning")  # of blurhash
def test_chaos_in_volume(stage: Stage):
    """Stand-ins for engine and judge, which fail as well."""
    timing = Timing(
        min_ttl_seconds=30,
        cleaner_seconds=1,
        drop_window_seconds=DROP_SECONDS,
        form_seconds=FORM_SECONDS,
    )
    with (
        Sandbox(VOLUME_MODELS, timing=timing, limits={}) as sandbox,
        ShakyServer(stage.draw("text server")) as text_server,
    ):
        keys = form_orders.KEYS + text_orders.keys(text_server.url)
        home = stage.write_stand_ins_home(sandbox, keys)
        models = home / "models"
        form_orders.put_files(models)
        world = World(
            sandbox,
            stage.stand_ins(home, engines=1),
            stage.draw("troubles"),
            spare_model=models / "compvis" / f"{SPARE}.safetensors",
            text_server=text_server,
        )
        asked = stage.draw("orders")
        customer = Customer(sandbox, asked, lambda: any_order(asked), world.bear)
        with closing(customer), closing(world.service):
            judgement = play(
                world,
                customer,
                Script(VOLUME, stage.jobs, 3),
                StandIns(sandbox).complaint,
                lambda form: form_orders.complaint(form, sandbox, models),
                text_orders.complaint,
            )
            assert_right(judgement, world, stage.show)


def test_chaos_with_three_engines(stage: Stage):
    """One of them dies again and again, and the other two make its jobs."""
    timing = Timing(min_ttl_seconds=30, cleaner_seconds=1, drop_window_seconds=DROP_SECONDS)
    with Sandbox(VOLUME_MODELS, timing=timing, limits={}) as sandbox:
        home = stage.write_stand_ins_home(sandbox)
        world = World(sandbox, stage.stand_ins(home, engines=3), stage.draw("troubles"))
        asked = stage.draw("orders")
        customer = Customer(
            sandbox, asked, lambda: orders.order(asked, tuple(VOLUME_MODELS)), world.bear
        )
        with closing(customer), closing(world.service):
            judgement = play(
                world,
                customer,
                Script(ENGINES, stage.jobs // ENGINES_SHARE, 3),
                StandIns(sandbox).complaint,
            )
            assert_right(judgement, world, stage.show)
        logs = {log.name for log in (home / "logs").glob("engine*.log")}
        assert logs == {"engine.log", "engine-1.log", "engine-2.log"}


def any_order(draw: random.Random) -> orders.Order | FormOrder | TextOrder:
    drawn = draw.random()
    if drawn < FORMS_SHARE:
        return form_orders.order(draw)
    if drawn < FORMS_SHARE + TEXTS_SHARE:
        return text_orders.order(draw)
    return orders.order(draw, tuple(VOLUME_MODELS))


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
    books = world.sandbox.books()
    forms = Counter(form.state for form in books.forms)
    counts = ", ".join(f"{count} {state}" for state, count in forms.items())
    of_forms = [f"{len(books.forms)} forms: {counts}"] if forms else []
    texts = Counter(text.state.value for text in books.texts)
    of_texts = [f"{len(books.texts)} texts: {dict(texts)}"] if texts else []
    show("\n".join([*world.figures, done, judgement.table(), *of_forms, *of_texts]))
    wrongs = [str(wrong) for wrong in judgement.wrongs(books)]
    told = [judgement.table(), *wrongs, *world.diary, world.service.last_words()]
    assert not wrongs, "\n".join(told)
    assert judgement.recovery_seconds <= RECOVERY_SECONDS
    possible = sum(row.n for row in books.requests if is_possible(row))
    assert len(books.in_state(State.ok)) >= DELIVERED_SHARE * possible
    assert forms["done"] >= DELIVERED_SHARE * (len(books.forms) - forms["cancelled"])
    assert texts[State.ok] >= TEXTS_DELIVERED_SHARE * len({text.request_id for text in books.texts})
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

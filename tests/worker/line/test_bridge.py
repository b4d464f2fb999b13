"""The whole line against the local horde over HTTP, with a real engine child. Its books judge."""

from __future__ import annotations

import base64
import io
import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from hordelib import Engine, GenerationParams
from hordelib.demo_model import ensure_transparency
from hordelib.demo_model.shapes import Scene, draw
from hordelib.files.model import Model
from hordelib.job.families import FAMILIES, SD1
from hordelib.job.images import Picture
from hordelib.job.samplers import SAMPLERS, Scheduler
from hordelib.job.transparency import transparency_of
from hordelib.pictures.qr_code import control_net_file
from tests.support.dying_children import (
    LIVES,
    dies_twice_and_stays_dead,
    never_ready,
    start_only_once,
)
from tests.support.looks import look, pixels
from tests.support.sandbox_client import CLIENT_KEY as CLIENT
from tests.support.sandbox_client import MODEL, MODELS, UNKNOWN_ID, Api
from tests.support.sandbox_client import NEWBIE_KEY as NEWBIE
from tests.support.sandbox_client import WORKER_KEY as WORKER
from worker.children.engine import EngineProcess, Patience
from worker.children.judge import JudgePatience, JudgeProcess
from worker.children.messages import EngineSettings, JudgeSettings
from worker.clock import elapsed_seconds
from worker.config.keys import BridgeConfig
from worker.errors import EngineUnusable, HordeUnreachable, JudgeUnusable, NotAllowed
from worker.horde.api import FullPop, Slot, slots_of
from worker.jobs.drop_limit import MOST_DROPS
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.jobs.results import JobStage, Made
from worker.line.bridge import Bridge
from worker.line.devices.device import Device
from worker.line.devices.runner import TRIES
from worker.line.limits import Limits
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.models.opening import Models
from worker.prediction.predictor import SecondsPredictor
from worker.safety.judging import Judging
from worker.safety.policy import censorship_of
from worker.sandbox import (
    HandedOutAgain,
    Latency,
    LostReply,
    NamedTwice,
    Reply,
    Sandbox,
    State,
)
from worker.service.assembly import make_client, make_intake
from worker.service.terminal import status_line

PARAMS = {
    "width": 64,
    "height": 64,
    "steps": 6,
    "cfg_scale": 4.0,
    "sampler_name": "k_euler",
    "karras": False,
    "seed": "11",
}
PAUSE = PauseReason(PauseCause.owner, "you paused it", PauseKind.finish)
GONE = "Demo XL"  # a model whose file has disappeared since it was offered
PROMPT = "a red circle on a blue background"


@dataclass
class Stage:
    """A horde, a client, and the parts to make workers of.

    Its engine is one for all tests, which goes on when a worker stops it, but for `own_engine`.
    """

    sandbox: Sandbox
    client: Api
    engine: EngineProcess
    judge: JudgeProcess
    checkpoint: Path
    folder: Path  # an owner's, with nothing in it
    ledger: Ledger
    limits: Limits = field(default_factory=Limits)
    predictor: SecondsPredictor = field(default_factory=SecondsPredictor)

    def config(self, **changes: object) -> BridgeConfig:
        values = {
            "api_key": WORKER,
            "dreamer_name": "tester",
            "models_to_load": [MODEL],
            "horde_url": self.sandbox.url,
        }
        return BridgeConfig.model_validate(values | changes)

    def journal(self) -> Journal:
        return Journal(self.ledger, predictor=self.predictor)

    def bridge(self, journal: Journal | None = None, **changes: object) -> Bridge:
        config = self.config(**changes)
        model = Model.of_checkpoint(self.checkpoint, MODEL)
        gone = {"checkpoint": self.checkpoint.with_name("gone.safetensors")}
        models = {MODEL: model, GONE: replace(model, name=GONE, files=gone)}
        return Bridge(
            make_client(config),
            [Device(self.engine)],
            make_intake(config, self.folder, Models(models, ())),
            Judging(self.judge, lambda: censorship_of(config)),
            journal or self.journal(),
            self.limits,
        )

    def ask(self, prompt: str = PROMPT, model: str = MODEL, **params: object) -> str:
        return self.client.ask_id(PARAMS | params, prompt=prompt, models=[model])

    def states(self, *requests: str) -> list[State]:
        """Of these requests' images; one that was faulted and popped again is there twice."""
        books = self.sandbox.books()
        return [image.state for request in requests for image in books.of_request(request)]

    def serve(self, bridge: Bridge, until: Callable[[], bool], seconds: float = 120) -> None:
        """Run the bridge until `until`, then stop it; fails when that takes too long."""
        bridge.start()
        try:
            wait_until(lambda: until() or bridge.is_stopping, seconds)
        finally:
            bridge.stop()
            assert bridge.join(60), f"not ended: {bridge.busy}"
            assert_no_bug(bridge)

    def all_done(self) -> bool:
        return all(request.done for request in self.sandbox.books().requests)


def assert_no_bug(bridge: Bridge) -> None:
    assert "internal error" not in str(bridge.failure)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


class LastingEngine(EngineProcess):
    """Spares all workers but the first their engine's start, which takes longer than their jobs."""

    device = ""

    def start(self) -> str:
        if not self.is_alive:
            self.device = super().start()
        return self.device

    def stop(self, timeout: float = 10) -> None:
        assert not self._running, "a worker leaves no job in its engine"


def engine_settings(folder: Path) -> EngineSettings:
    return EngineSettings(None, "auto", 256 << 20, None, folder / "engine.log")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineProcess]:
    engine = LastingEngine(engine_settings(tmp_path_factory.mktemp("engine")))
    yield engine
    engine.kill()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Generator[JudgeProcess]:
    folder = tmp_path_factory.mktemp("judge")
    judge = JudgeProcess(JudgeSettings(folder, False, folder / "judge.log"))
    yield judge
    judge.kill()


@pytest.fixture
def stage(
    child: EngineProcess, judge: JudgeProcess, checkpoint: Path, tmp_path: Path
) -> Generator[Stage]:
    with (
        Sandbox(MODELS, limits={}) as sandbox,
        Api(sandbox.url, CLIENT) as client,
        closing(Ledger(tmp_path / "state" / FILE)) as ledger,
    ):
        yield Stage(sandbox, client, child, judge, checkpoint, tmp_path, ledger)


@pytest.fixture
def own_engine(stage: Stage) -> Generator[None]:
    """One that ends where a worker stops it."""
    stage.engine = EngineProcess(engine_settings(stage.folder))
    yield
    stage.engine.kill()


@dataclass
class Service:
    """A worker that serves for the whole module: tests post jobs and look at their own."""

    stage: Stage
    journal: Journal

    def finish(self, *ids: str) -> list[State]:
        """The states of these requests' images, once nothing of them is open any more."""
        wait_until(lambda: all(self.stage.sandbox.books().request(i).done for i in ids), 120)
        return self.stage.states(*ids)


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    folder = tmp_path_factory.mktemp("service")
    engine = EngineProcess(engine_settings(folder))
    judge = JudgeProcess(JudgeSettings(folder, False, folder / "judge.log"))
    with Sandbox(MODELS, limits={}) as sandbox, Api(sandbox.url, CLIENT) as client:
        stage = Stage(sandbox, client, engine, judge, checkpoint, folder, Ledger(None))
        journal = stage.journal()
        bridge = stage.bridge(journal)
        bridge.start()
        yield Service(stage, journal)
        bridge.stop()
        assert bridge.join(60)


def test_every_job_is_served_with_the_picture_it_asked_for(
    service: Service, engine: Engine, checkpoint: Path
):
    stage = service.stage
    single = stage.ask(
        "a green heart on a white background", karras=True, sampler_name="k_dpmpp_2m"
    )
    batch = stage.ask(n=3, sampler_name="k_euler_a", seed="100")

    assert service.finish(single, batch) == [State.ok] * 4

    books = stage.sandbox.books()
    heart = GenerationParams(
        prompt="a green heart on a white background",
        width=64,
        height=64,
        seed=11,
        steps=6,
        cfg=4.0,
        sampler=SAMPLERS["k_dpmpp_2m"],
        scheduler=Scheduler.karras,
    )
    (image,) = books.of_request(single)
    assert stage.sandbox.image(image.id) == _webp(engine, checkpoint, heart)[0]
    assert (image.seed, image.gen_metadata) == (11, ())

    images = books.of_request(batch)
    assert [image.seed for image in images] == [100, 101, 102]
    assert [note["ref"] for image in images for note in image.gen_metadata] == ["0", "1", "2"]
    circles = replace(
        heart,
        prompt=PROMPT,
        seed=100,
        images=3,
        sampler=SAMPLERS["k_euler_a"],
        scheduler=Scheduler.normal,
    )
    sent = [stage.sandbox.image(image.id) for image in images]
    assert sent == _webp(engine, checkpoint, circles)
    assert books.user_kudos["owner#1"] > 0


def test_the_journal_tells_what_the_horde_paid(service: Service):
    before = service.journal.view().kudos
    done = service.stage.ask()
    service.finish(done)
    wait_until(lambda: service.journal.view().kudos > before, 200)
    (image,) = service.stage.sandbox.books().of_request(done)
    assert service.journal.view().kudos - before == pytest.approx(image.reward)


def _webp(engine: Engine, checkpoint: Path, params: GenerationParams) -> list[bytes]:
    return [picture.to_webp() for picture in engine.generate(params, checkpoint).images]


def test_a_model_that_cannot_be_used_faults_its_job_and_leaves_the_offer(service: Service):
    refused = service.stage.ask(model=GONE)
    served = service.stage.ask()
    assert service.finish(served) == [State.ok]
    popped = service.stage.states(refused)
    assert set(popped) == {State.faulted}  # two, if a pop was then under way
    assert any("gone.safetensors" in row.reason for row in service.journal.view().rows)
    again = service.stage.ask()
    assert service.finish(again) == [State.ok]
    assert service.stage.states(refused) == popped  # not popped again


def test_what_is_left_out_of_a_picture_is_disclosed(service: Service):
    asked = service.stage.ask(tis=[{"name": "7808"}])
    assert service.finish(asked) == [State.ok]
    (image,) = service.stage.sandbox.books().of_request(asked)
    assert [dict(note) for note in image.gen_metadata] == [
        {"type": "ti", "value": "download_failed", "ref": "7808"}
    ]


@pytest.mark.parametrize("endpoint", ["upload", "submit", "pop"])
def test_a_call_that_fails_for_a_while_is_repeated(service: Service, endpoint: str):
    service.stage.sandbox.faults.inject(endpoint, Reply(503), calls=2)
    assert service.finish(service.stage.ask()) == [State.ok]


def test_a_submit_whose_answer_was_lost_counts_once(service: Service):
    sandbox = service.stage.sandbox
    before = sandbox.books().tally.rcs.get("DuplicateGen", 0)
    sandbox.faults.inject("submit", LostReply(), calls=1)
    assert service.finish(service.stage.ask()) == [State.ok]
    wait_until(lambda: sandbox.books().tally.rcs.get("DuplicateGen", 0) == before + 1, 200)


def test_an_image_that_the_storage_refuses_is_faulted(service: Service):
    service.stage.sandbox.faults.inject("upload", Reply(403), calls=1)
    states = service.finish(service.stage.ask())
    assert states == [State.faulted, State.ok]  # the horde gave it out again


def test_an_engine_killed_under_a_job_is_replaced_and_the_job_is_served(stage: Stage):
    stage.ask(steps=30)
    journal = stage.journal()
    killed: list[int] = []

    def kill_once() -> bool:
        running = journal.view().running
        if running is not None and running.step > 2 and not killed:
            assert stage.engine.pid is not None
            os.kill(stage.engine.pid, signal.SIGKILL)
            killed.append(stage.engine.pid)
        return stage.all_done()

    stage.serve(stage.bridge(journal), kill_once)
    assert killed
    assert [g.state for g in stage.sandbox.books().generations] == [State.ok]


def test_an_engine_that_does_not_answer_is_shown_within_two_seconds(stage: Stage):
    stage.ask(steps=100)
    journal = stage.journal()
    bridge = stage.bridge(journal)

    def is_silent() -> bool:
        bridge.watch()
        return "silent for" in status_line(journal.view())

    bridge.start()
    wait_until(lambda: (row := journal.view().running) is not None and row.step > 2, 200)
    assert stage.engine.pid is not None
    assert not is_silent()
    os.kill(stage.engine.pid, signal.SIGSTOP)
    wait_until(is_silent, 2)
    os.kill(stage.engine.pid, signal.SIGCONT)
    wait_until(lambda: not is_silent(), 2)
    bridge.abandon()
    assert bridge.join(10), bridge.busy


def test_a_judge_killed_over_a_picture_is_replaced_and_the_picture_is_delivered(stage: Stage):
    stage.ask()
    killed: list[int] = []

    def kill_once() -> bool:
        if stage.judge.pid is not None and stage.judge.is_alive and not killed:
            killed.append(stage.judge.pid)
            os.kill(stage.judge.pid, signal.SIGKILL)
        return stage.all_done()

    stage.serve(stage.bridge(), kill_once)
    assert killed
    assert [g.state for g in stage.sandbox.books().generations] == [State.ok]


def test_no_picture_leaves_while_nobody_can_judge_it(stage: Stage):
    asked = stage.ask()
    bridge = stage.bridge()

    def keep_killing() -> bool:
        if stage.judge.pid is not None and stage.judge.is_alive:
            os.kill(stage.judge.pid, signal.SIGKILL)
        states = stage.states(asked)
        return State.faulted in states or State.ok in states

    stage.serve(bridge, keep_killing)
    assert State.ok not in stage.states(asked)
    assert stage.sandbox.books().tally.calls.get("upload", 0) == 0


def test_a_source_image_and_its_mask_come_over_the_horde(service: Service):
    star = draw(Scene("star", "yellow", "purple", size="large"), 64)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    asked = service.stage.client.ask_id(
        PARAMS,
        prompt=PROMPT,
        models=[MODEL],
        source_image=base64_png(star),
        source_mask=base64_png(mask),
        source_processing="img2img",
    )
    assert service.finish(asked) == [State.ok]
    (image,) = service.stage.sandbox.books().of_request(asked)
    webp = service.stage.sandbox.image(image.id)
    assert webp is not None
    with Image.open(io.BytesIO(webp)) as delivered:
        kept = abs(pixels(delivered) - pixels(star))[:, :30]
    assert kept.mean() < 6  # WebP twice: the horde's, and ours


def base64_png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_transparent_picture_arrives_with_its_opacity(stage: Stage):
    folder = stage.folder / "models"
    files = transparency_of(folder, SD1.name)
    net = control_net_file(folder, SD1.name)  # the same flag stands for both
    assert files is not None
    assert net is not None
    made = ensure_transparency(stage.checkpoint.parent.parent)
    pairs = zip(made, (files.patches, files.decoder), strict=True)
    for own, name in (*pairs, (stage.checkpoint, net)):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(own)
    asked = stage.ask("a red ring on a white background", transparent=True, steps=10, seed="3")
    stage.serve(stage.bridge(allow_sdxl_controlnet=True), stage.all_done)
    (image,) = stage.sandbox.books().of_request(asked)
    webp = stage.sandbox.image(image.id)
    assert (image.state, image.gen_metadata) == (State.ok, ())
    assert webp is not None
    with Image.open(io.BytesIO(webp)) as delivered:
        opacity = delivered.getchannel("A")
        assert opacity.getpixel((32, 32)) == 0
        assert opacity.getextrema() == (0, 255)


def first_at_work_second_waiting(journal: Journal) -> bool:
    view = journal.view()
    return view.running is not None and view.running.step > 1 and view.waiting == 1


def test_a_picture_that_takes_long_to_upload_holds_up_none_of_its_job(stage: Stage):
    stage.sandbox.faults.inject("upload", Latency(6), calls=1)
    request = stage.ask(n=3)
    delivered_at = list[float]()

    def are_all_delivered() -> bool:
        states = stage.states(request)
        while len(delivered_at) < states.count(State.ok):
            delivered_at.append(time.monotonic())
        return len(delivered_at) == 3

    stage.serve(stage.bridge(), are_all_delivered)
    _, second, last = delivered_at
    assert last - second > 2, "the others had to wait for the first"


@pytest.mark.usefixtures("own_engine")
def test_stopping_finishes_what_is_in_hand_and_takes_no_more(stage: Stage):
    first, second = stage.ask(steps=60), stage.ask()
    journal = stage.journal()
    stage.serve(stage.bridge(journal), lambda: first_at_work_second_waiting(journal))
    states = {g.request_id: g.state for g in stage.sandbox.books().generations}
    assert states == {first: State.ok, second: State.ok}
    assert not stage.engine.is_alive
    assert stage.ledger.totals().open == 0


def test_waiting_jobs_share_a_batch_and_each_client_gets_the_own_picture(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "worker.line.devices.runner")
    stage.limits = Limits(waiting_jobs=3)
    scenes = [Scene("circle", colour, "blue") for colour in ("red", "green", "yellow")]
    stage.ask(steps=60)  # at work while the others come
    asked = [
        stage.ask(scene.caption, steps=15, seed=str(i), cfg_scale=4.0 + i)
        for i, scene in enumerate(scenes)
    ]
    stage.serve(stage.bridge(), stage.all_done)
    assert "3 jobs share a batch" in caplog.text
    for scene, request in zip(scenes, asked, strict=True):
        (image,) = stage.sandbox.books().of_request(request)
        webp = stage.sandbox.image(image.id)
        assert webp is not None
        with Image.open(io.BytesIO(webp)) as delivered:
            assert look(delivered, scene).colour == scene.colour


def test_stopping_soon_faults_what_would_take_longer(stage: Stage):
    first, second = stage.ask(steps=500), stage.ask(steps=500)
    journal = stage.journal()
    bridge = stage.bridge(journal)
    bridge.start()
    wait_until(lambda: first_at_work_second_waiting(journal), 200)
    bridge.stop(within=3)
    assert bridge.join(30)  # each of the two would take longer
    states = {g.request_id: g.state for g in stage.sandbox.books().generations}
    assert states == {first: State.faulted, second: State.faulted}
    assert bridge.failure is None


def test_abandoning_faults_the_job_at_work_at_once(stage: Stage):
    stage.ask(steps=400)
    journal = stage.journal()
    bridge = stage.bridge(journal)
    bridge.start()
    wait_until(lambda: (row := journal.view().running) is not None and row.step > 1, 200)
    bridge.abandon()
    assert bridge.join(5), bridge.busy
    assert [g.state for g in stage.sandbox.books().generations] == [State.faulted]
    assert bridge.failure is None


def test_too_many_faults_make_it_stop_asking_before_the_horde_minds(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    failing = stage.ask(seed="9" * 120, n=20)  # more digits than it reads, whatever the model
    bridge = stage.bridge(max_batch=20)

    def faulted_then_held_back() -> bool:
        return "asking for no more" in caplog.text

    stage.serve(bridge, faulted_then_held_back)
    assert stage.states(failing) == [State.faulted] * MOST_DROPS


def test_what_moderators_write_is_told_once(stage: Stage, caplog: pytest.LogCaptureFixture):
    stage.sandbox.horde.send_message("please update your worker")
    stage.serve(stage.bridge(), lambda: stage.sandbox.books().tally.calls.get("pop", 0) > 2)
    assert caplog.text.count("please update your worker") == 1


@pytest.mark.parametrize("trouble", ["wrong key", "taken name"])
def test_a_worker_that_is_not_allowed_stops_and_says_what_to_do(stage: Stage, trouble: str):
    if trouble == "taken name":
        stage.serve(stage.bridge(), lambda: bool(stage.sandbox.books().tally.calls.get("pop")))
    key = "wrong-key-wrong-key-00" if trouble == "wrong key" else NEWBIE
    bridge = stage.bridge(api_key=key)
    stage.serve(bridge, lambda: False)
    assert isinstance(bridge.failure, NotAllowed)
    assert ("api_key" if trouble == "wrong key" else "dreamer_name") in bridge.failure.remedy


def test_an_engine_that_never_starts_stops_the_worker(stage: Stage, tmp_path: Path):
    nowhere = EngineSettings(tmp_path, "auto", 0, None, tmp_path / "engine.log")
    stage.engine = EngineProcess(nowhere, Patience())
    bridge = stage.bridge()
    stage.serve(bridge, lambda: False)
    assert isinstance(bridge.failure, EngineUnusable)
    assert "ComfyUI" in str(bridge.failure)


def test_jobs_that_share_a_batch_end_when_no_engine_starts_any_more(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.DEBUG, "worker.line.devices.runner")
    monkeypatch.setattr("worker.line.devices.runner.RESTARTS", (0.01, 0.02))
    settings = EngineSettings(None, "auto", 0, None, tmp_path / "engine.log")
    assert LIVES == TRIES
    stage.engine = EngineProcess(settings, main=dies_twice_and_stays_dead)
    stage.limits = Limits(waiting_jobs=3)
    params = GenerationParams(prompt="a", width=64, height=64, steps=6)
    stage.predictor.learn(params, FAMILIES["stable diffusion 1"], 1.0)
    for _ in range(4):
        stage.ask()
    bridge = stage.bridge()
    stage.serve(bridge, lambda: False)
    assert isinstance(bridge.failure, EngineUnusable)
    assert "jobs share a batch" in caplog.text
    assert {g.state for g in stage.sandbox.books().generations} == {State.faulted}
    assert stage.ledger.totals().open == 0


def test_a_horde_that_was_never_there_stops_the_worker(stage: Stage):
    stage.sandbox.stop()
    stage.limits = Limits(first_contact_seconds=2)
    bridge = stage.bridge()
    stage.serve(bridge, lambda: False)
    assert isinstance(bridge.failure, HordeUnreachable)


# ---- an earlier life of the worker -----------------------------------------------------------


@dataclass
class Debt:
    """What a worker that was killed has left: a popped job, and the ledger's rows of it."""

    slots: tuple[Slot, ...]
    request: str

    def made(self, picture: Picture, index: int = 0) -> Made:
        return Made(self.slots[index], picture.seed, picture.to_webp(), PROMPT)


@pytest.fixture
def debt(stage: Stage) -> Debt:
    request = stage.ask(n=2)
    with Api(stage.sandbox.url, WORKER) as worker:
        popped = worker.pop_job(amount=2)
    over_at = elapsed_seconds() + 200
    slots = slots_of(tuple(popped["ids"]), tuple(popped["r2_uploads"]), over_at)
    stage.ledger.popped(slots, MODEL)
    return Debt(slots, request)


PICTURE = Picture(64, 64, draw(Scene("star", "yellow", "purple"), 64).tobytes(), 11)


def test_a_finished_picture_of_an_earlier_life_is_judged_delivered_and_paid(
    stage: Stage, debt: Debt
):
    first, second = debt.made(PICTURE), debt.made(replace(PICTURE, seed=12), 1)
    stage.ledger.made([first, second])
    journal = stage.journal()
    stage.serve(stage.bridge(journal), lambda: journal.view().images_done == 2)
    images = stage.sandbox.books().of_request(debt.request)
    assert [(image.state, image.seed) for image in images] == [(State.ok, 11), (State.ok, 12)]
    assert stage.sandbox.image(images[0].id) == first.webp
    assert stage.ledger.totals().images == {JobStage.submitted: 2}


def test_a_picture_that_was_submitted_before_the_end_is_known_to_be(stage: Stage, debt: Debt):
    stage.ledger.made([debt.made(PICTURE)])
    with Api(stage.sandbox.url, WORKER) as worker:
        assert worker.submit(debt.slots[0].id, seed=11).status_code == 200
    stage.serve(stage.bridge(), lambda: stage.ledger.totals().open == 0)
    assert stage.ledger.totals().images[JobStage.submitted] == 1
    assert stage.states(debt.request)[0] is State.ok


def test_what_an_earlier_life_had_and_its_ledger_does_not_know_is_faulted_and_served_anew(
    stage: Stage, debt: Debt
):
    stage.serve(stage.bridge(), stage.all_done)
    states = stage.states(debt.request)
    assert states == [State.faulted, State.faulted, State.ok, State.ok]


def test_what_waits_at_a_stop_that_a_restart_follows_is_made_by_the_next_life(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("worker.line.popping.restart_follows", lambda: True)
    at_work, waiting = stage.ask(steps=80), stage.ask(n=2, seed="30")
    journal = stage.journal()
    bridge = stage.bridge(journal, max_batch=2)
    bridge.start()
    wait_until(lambda: first_at_work_second_waiting(journal), 200)
    bridge.abandon()
    assert bridge.join(30), bridge.busy
    assert_no_bug(bridge)
    assert stage.states(at_work, waiting) == [State.processing] * 3
    assert (bridge.in_hand, stage.ledger.totals().open) == (0, 3)
    stage.serve(stage.bridge(), stage.all_done)
    assert stage.states(at_work, waiting) == [State.ok] * 3
    assert [image.seed for image in stage.sandbox.books().of_request(waiting)] == [30, 31]


def test_a_paused_worker_gives_back_what_an_earlier_life_had(stage: Stage):
    asked = stage.ask()
    with Api(stage.sandbox.url, WORKER) as worker:
        job = FullPop.model_validate(worker.pop_job(), strict=False)
    (image,) = stage.sandbox.books().of_request(asked)
    popped = job.job((image.id,), elapsed_seconds())
    stage.ledger.popped(popped.slots, MODEL, popped.asked)
    bridge = stage.bridge()
    bridge.pause([PAUSE])
    bridge.start()
    wait_until(lambda: stage.states(asked) == [State.faulted], 200)
    bridge.stop()
    assert bridge.join(30), bridge.busy


@pytest.mark.usefixtures("own_engine")
def test_a_pause_waits_for_what_an_earlier_life_had_and_then_frees_the_device(stage: Stage):
    """They are more than there are places for."""
    stage.limits = Limits(waiting_jobs=0)
    requests = [stage.ask(seed=seed, steps=30) for seed in ("1", "20", "40")]
    for request in requests:
        with Api(stage.sandbox.url, WORKER) as worker:
            job = FullPop.model_validate(worker.pop_job(), strict=False)
        (image,) = stage.sandbox.books().of_request(request)
        popped = job.job((image.id,), elapsed_seconds())
        stage.ledger.popped(popped.slots, MODEL, popped.asked)
    journal = stage.journal()
    bridge = stage.bridge(journal)
    bridge.start()
    wait_until(lambda: journal.view().running is not None, 200)
    bridge.pause([PAUSE])
    wait_until(lambda: bridge.has_paused, 200)
    assert stage.states(*requests) == [State.ok] * 3
    bridge.stop()
    assert bridge.join(30), bridge.busy


# ---- what the horde says twice ---------------------------------------------------------------


@pytest.mark.parametrize("moment", ["in hand", "ended"])
def test_an_id_that_was_handed_out_before_is_dropped_and_told_once(
    stage: Stage, moment: str, caplog: pytest.LogCaptureFixture
):
    stage.limits = Limits(waiting_jobs=2)
    first = stage.ask(n=2, steps=60 if moment == "in hand" else 6)
    journal = stage.journal()
    bridge = stage.bridge(journal, max_batch=2)
    bridge.start()
    wait_until(lambda: journal.view().running is not None, 200)
    if moment == "ended":
        wait_until(stage.all_done, 200)
    stage.sandbox.faults.inject("pop", HandedOutAgain(), calls=3)
    wait_until(lambda: "twice: dropped" in caplog.text, 200)
    later = stage.ask()
    wait_until(lambda: stage.sandbox.books().request(later).done, 200)
    wait_until(stage.all_done, 200)
    bridge.stop()
    assert bridge.join(30), bridge.busy
    assert bridge.failure is None
    assert caplog.text.count("twice: dropped") == 1
    assert stage.states(first, later) == [State.ok] * 3
    assert [len(image.settlings) for image in stage.sandbox.books().generations] == [1, 1, 1]


def test_an_id_that_is_named_twice_in_one_answer_is_served_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    stage.sandbox.faults.inject("pop", NamedTwice())
    asked = stage.ask(n=2, seed="40")
    stage.serve(stage.bridge(max_batch=2), stage.all_done)
    images = stage.sandbox.books().of_request(asked)
    assert [(image.state, image.seed) for image in images] == [(State.ok, 40), (State.ok, 41)]
    assert [len(image.settlings) for image in images] == [1, 1]
    assert "twice: dropped" in caplog.text


def test_what_the_horde_has_forgotten_is_given_up(stage: Stage):
    ids = (UNKNOWN_ID, UNKNOWN_ID.replace("0", "1"))
    upload_url = f"{stage.sandbox.url}/transient/{UNKNOWN_ID}.webp"
    slots = slots_of(ids, (upload_url, upload_url), elapsed_seconds() + 200)
    stage.ledger.popped(slots, MODEL)
    stage.ledger.made([Debt(slots, "").made(PICTURE)])
    stage.serve(stage.bridge(), lambda: stage.ledger.totals().open == 0)
    assert stage.ledger.totals().images == {JobStage.given_up: 2}


def test_what_can_not_be_delivered_at_the_end_is_left_to_the_next_life(stage: Stage):
    """More jobs than finishers, which are all busy with uploads that fail."""
    asked = [stage.ask(seed=str(seed)) for seed in range(7)]
    stage.sandbox.faults.inject("upload", Reply(503))
    stage.limits = replace(Limits(), waiting_jobs=2)
    bridge = stage.bridge()
    bridge.start()

    def all_but_those_for_which_there_is_no_room() -> bool:
        with closing(sqlite3.connect(stage.folder / "state" / FILE)) as db:
            states = [row[0] for row in db.execute("SELECT state FROM images")]
        return states.count("made") >= 6

    wait_until(all_but_those_for_which_there_is_no_room, 200)
    bridge.abandon()
    assert bridge.join(10), bridge.busy
    assert bridge.failure is None
    assert stage.ledger.totals().open >= 6
    stage.sandbox.faults.clear()
    stage.serve(stage.bridge(), stage.all_done)
    states = [stage.states(each) for each in asked]
    assert sum(each == [State.ok] for each in states) >= 6


def test_a_stop_while_the_judge_starts_is_no_failure(stage: Stage, tmp_path: Path):
    stage.judge = JudgeProcess(
        JudgeSettings(tmp_path, False, tmp_path / "judge.log"), main=never_ready
    )
    bridge = stage.bridge()
    bridge.start()
    wait_until(lambda: stage.judge.pid is not None, 200)
    bridge.stop()
    assert bridge.join(30), bridge.busy
    assert bridge.failure is None
    assert not stage.judge.is_alive


def test_a_judge_that_can_not_be_started_any_more_ends_the_worker_with_all_pictures_kept(
    stage: Stage, tmp_path: Path
):
    for seed in range(3):
        stage.ask(seed=str(seed))
    whole, stage.judge = (
        stage.judge,
        JudgeProcess(
            JudgeSettings(tmp_path, False, tmp_path / "judge.log"),
            JudgePatience(restarts=(0.01, 0.1)),
            main=start_only_once,
        ),
    )
    bridge = stage.bridge()
    stage.serve(bridge, lambda: False)
    assert isinstance(bridge.failure, JudgeUnusable)
    assert stage.ledger.totals().open > 0
    stage.judge = whole
    stage.serve(stage.bridge(), stage.all_done)


def test_an_engine_that_never_starts_leaves_no_debt_unread(stage: Stage, tmp_path: Path):
    stage.engine = EngineProcess(EngineSettings(tmp_path, "auto", 0, None, tmp_path / "e.log"))
    ids = tuple(f"{number}" for number in range(40))
    for id in ids:
        stage.ledger.popped(slots_of((id,), ("",), elapsed_seconds() + 200), MODEL)
    bridge = stage.bridge()
    stage.serve(bridge, lambda: False)
    assert isinstance(bridge.failure, EngineUnusable)
    assert stage.ledger.totals().images == {JobStage.given_up: len(ids)}


# ---- orders ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_engine")
def test_a_paused_worker_finishes_frees_the_device_and_serves_again(stage: Stage):
    journal = stage.journal()
    bridge = stage.bridge(journal)
    first = stage.ask()
    bridge.start()
    wait_until(lambda: journal.view().running is not None, 200)
    bridge.pause([PAUSE])
    wait_until(lambda: not stage.engine.is_alive, 200)
    assert stage.states(first) == [State.ok]
    second = stage.ask()
    pops = stage.sandbox.books().tally.calls["pop"]
    time.sleep(1)
    assert stage.sandbox.books().tally.calls["pop"] == pops
    bridge.resume()
    wait_until(stage.all_done, 200)
    assert stage.states(second) == [State.ok]
    bridge.stop()
    assert bridge.join(30)


@pytest.mark.usefixtures("own_engine")
def test_a_pause_at_once_frees_the_device_and_gives_back_what_has_no_picture(stage: Stage):
    """Another worker makes it; nothing is held against the jobs, and serving goes on later."""
    journal = stage.journal()
    bridge = stage.bridge(journal)
    requests = [stage.ask(seed=seed, steps=100) for seed in ("1", "20")]
    bridge.start()
    wait_until(lambda: (at_work := journal.view().running) is not None and at_work.step > 0, 200)
    bridge.pause([PAUSE, replace(PAUSE, kind=PauseKind.at_once)])
    assert not stage.engine.is_alive
    wait_until(lambda: bridge.has_paused, 200)
    assert journal.view().obstacle.told == "you paused it; you paused it"
    assert State.ok not in stage.states(*requests)
    assert journal.drop_limit.stops == journal.drop_limit.drops > 0
    bridge.resume()
    wait_until(stage.all_done, 200)
    bridge.stop()
    assert bridge.join(30), bridge.busy
    assert stage.engine.is_alive is False
    assert bridge.failure is None


@pytest.mark.usefixtures("own_engine")
def test_a_rest_leaves_the_models_where_they_are(stage: Stage):
    journal = stage.journal()
    bridge = stage.bridge(journal)
    first = stage.ask()
    bridge.start()
    wait_until(lambda: journal.view().running is not None, 200)
    bridge.pause([replace(PAUSE, kind=PauseKind.rest)])
    wait_until(lambda: bridge.has_paused, 200)
    assert stage.states(first) == [State.ok]
    assert stage.engine.is_alive
    bridge.stop()
    assert bridge.join(30), bridge.busy


def test_an_answer_lost_at_pop_is_counted(stage: Stage):
    stage.ask()
    stage.sandbox.faults.inject("pop", LostReply(), calls=1)
    journal = stage.journal()
    stage.serve(stage.bridge(journal), lambda: journal.view().lost_pops == 1)
    assert stage.ledger.totals().lost_pops == 1


def test_an_outage_counts_as_one_drop_at_most(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.line.popper.TROUBLE_SECONDS", (0.01, 0.02))
    served = stage.ask()
    journal = stage.journal()
    bridge = stage.bridge(journal)
    bridge.start()
    wait_until(lambda: stage.sandbox.books().request(served).done, 200)
    stage.sandbox.faults.inject("pop", LostReply())
    wait_until(lambda: journal.view().lost_pops >= 25, 200)
    stage.sandbox.faults.clear()
    later = stage.ask()
    wait_until(lambda: stage.sandbox.books().request(later).done, 200)
    bridge.stop()
    assert bridge.join(30), bridge.busy
    assert journal.drop_limit.drops <= 2

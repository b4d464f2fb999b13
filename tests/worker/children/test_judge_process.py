"""The judge as a child process: real processes, really killed, and no picture without a verdict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from hordelib.errors import JudgeFailed
from hordelib.job.images import Picture
from hordelib.safety.nudenet import NudeNetJudge
from hordelib.safety.verdict import Verdict
from tests.support import safety_stand_in
from tests.support.owner import PROJECT
from tests.support.safety_stand_in import BROKEN, PLAIN
from worker.children import judge_main
from worker.children.child_side import Child
from worker.children.judge import JudgePatience, JudgeProcess
from worker.children.judge_pool import JudgePool
from worker.children.messages import Judged, JudgeSettings, Ready, Stepped
from worker.errors import JudgeUnusable

WEBP = PLAIN.to_webp()
PATIENCE = JudgePatience(heartbeat=2, restarts=(0.01, 0.1))


def settings(models: Path, *, horde_safety: bool = True) -> JudgeSettings:
    return JudgeSettings(models, horde_safety, models / "judge.log")


def obedient(models: Path, patience: JudgePatience = PATIENCE) -> JudgeProcess:
    """One that judges as the prompt says."""
    return JudgeProcess(settings(models), patience, main=safety_stand_in.main)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def judge(models: Path) -> Generator[JudgeProcess]:
    process = obedient(models)
    assert process.start() == "NudeNet, horde_safety"
    yield process
    process.stop()


def pid_of(judge: JudgeProcess) -> int:
    assert judge.pid is not None
    return judge.pid


def test_a_picture_gets_the_verdict_of_all_judges(judge: JudgeProcess):
    assert judge.judge("a", 0, WEBP, "a cat") == Verdict()
    assert judge.judge("a", 1, WEBP, "nsfw").nsfw
    assert judge.judge("a", 2, WEBP, "csam").csam


@pytest.mark.parametrize("prompt", ["undecided", "raise"])
def test_a_picture_that_cannot_be_judged_fails_alone(judge: JudgeProcess, prompt: str):
    pid = judge.pid
    with pytest.raises(JudgeFailed, match="image 3 could not be judged"):
        judge.judge("a", 3, WEBP, prompt)
    assert judge.judge("a", 4, WEBP, "a cat") == Verdict()
    assert judge.pid == pid


def test_a_judge_killed_between_pictures_is_replaced(judge: JudgeProcess):
    killed = pid_of(judge)
    os.kill(killed, signal.SIGKILL)
    assert judge.judge("a", 0, WEBP, "nsfw").nsfw
    assert judge.pid != killed


def test_a_judge_killed_over_a_picture_is_replaced_and_asked_again(judge: JudgeProcess):
    killed = pid_of(judge)
    assert judge.judge("a", 0, WEBP, "die once") == Verdict()
    assert judge.pid != killed


def test_a_picture_that_kills_two_judges_does_not_leave(judge: JudgeProcess):
    with pytest.raises(JudgeFailed, match="ended by SIGKILL"):  # found by its exit code
        judge.judge("a", 0, WEBP, "die")
    assert judge.judge("a", 1, WEBP, "a cat") == Verdict()


def test_a_frozen_judge_is_killed_after_its_missed_heartbeats(judge: JudgeProcess):
    frozen = pid_of(judge)
    started = time.monotonic()
    with pytest.raises(JudgeFailed, match="the judge hung"):
        judge.judge("a", 0, WEBP, "freeze")
    assert time.monotonic() - started < 2 * PATIENCE.heartbeat + 10  # it was asked twice
    assert not psutil.pid_exists(frozen)


def test_no_picture_leaves_without_its_own_verdict_while_judges_are_killed(judge: JudgeProcess):
    judge.judge("before", 0, WEBP, "a cat")
    over = threading.Event()
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < 3 and not over.wait(0.2):
            if judge.is_alive and judge.pid not in killed:
                killed.add(pid_of(judge))
                os.kill(pid_of(judge), signal.SIGKILL)

    def ask(index: int) -> bool | None:
        try:
            return judge.judge("many", index, WEBP, "nsfw" if index % 2 else "a cat").nsfw
        except JudgeFailed:
            return None

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(4) as deliverers:
        found = list(deliverers.map(ask, range(30)))
    over.set()
    killer.join()
    assert all(nsfw in (None, index % 2 == 1) for index, nsfw in enumerate(found))
    assert any(nsfw is not None for nsfw in found)
    assert killed


def test_many_threads_get_each_its_own_verdict(judge: JudgeProcess):
    judge.judge("before", 0, WEBP, "a cat")

    def ask(index: int) -> bool:
        return judge.judge("many", index, WEBP, "csam" if index % 3 == 0 else "a cat").csam

    with ThreadPoolExecutor(4) as deliverers:
        assert list(deliverers.map(ask, range(24))) == [index % 3 == 0 for index in range(24)]


def confused(pipe: Connection, _settings: JudgeSettings) -> None:
    """A child that answers with its first picture's name, whatever it is asked about later."""
    child = Child(pipe)
    child.report(Ready("nobody"))
    first = None
    for asked in child.commands():
        first = first or asked
        child.report(Judged(first.job_id, first.index, Verdict()))


@pytest.mark.parametrize(("job_id", "index"), [("b", 0), ("a", 1)])
def test_a_verdict_on_another_picture_is_refused(models: Path, job_id: str, index: int):
    judge = JudgeProcess(settings(models), PATIENCE, main=confused)
    judge.start()
    first = judge.pid
    assert judge.judge("a", 0, WEBP, "") == Verdict()
    assert judge.judge(job_id, index, WEBP, "") == Verdict()  # by a new child, for whom it is first
    assert judge.pid != first
    judge.stop()


def babble(pipe: Connection, _settings: JudgeSettings) -> None:
    """A child that answers like an engine."""
    child = Child(pipe)
    child.report(Ready("nobody"))
    for _ in child.commands():
        child.report(Stepped(1, 1, 2))


def test_a_judge_that_gives_no_verdict_is_refused(models: Path):
    judge = JudgeProcess(settings(models), PATIENCE, main=babble)
    with pytest.raises(JudgeFailed, match="the judge spoke garbage"):
        judge.judge("a", 0, WEBP, "a cat")
    assert not judge.is_alive


def test_killing_the_judge_for_good_ends_what_waits_for_it(models: Path):
    judge = obedient(models, JudgePatience())
    judge.start()
    with ThreadPoolExecutor(1) as deliverer:
        waiting = deliverer.submit(judge.judge, "a", 0, WEBP, "freeze")
        frozen = psutil.Process(pid_of(judge))
        while frozen.status() != psutil.STATUS_STOPPED:
            os.sched_yield()
        judge.kill()
        with pytest.raises(JudgeFailed, match="stopping"):
            waiting.result(timeout=120)
    with pytest.raises(JudgeFailed, match="stopping"):
        judge.judge("a", 1, WEBP, "a cat")
    assert not judge.is_alive


def test_a_judge_that_cannot_start_says_why(tmp_path: Path):
    (tmp_path / BROKEN).touch()
    judge = obedient(tmp_path)
    with pytest.raises(JudgeUnusable, match=r"PytorchStreamReader failed.*judge\.log"):
        judge.start()
    assert not judge.is_alive


def test_nudenet_judges_alone_where_horde_safety_is_not_used(tmp_path: Path):
    judge = JudgeProcess(settings(tmp_path, horde_safety=False), PATIENCE)
    assert judge.start() == "NudeNet"
    assert judge.judge("a", 0, WEBP, "csam") == Verdict()
    judge.stop()
    assert not judge.is_alive


class Surroundings:
    """A judge whose only finding is what it was given to compute with."""

    name = "surroundings"

    def judge(self, picture: Picture, prompt: str) -> Verdict:
        nudenet = NudeNetJudge(judge_main.thread_count(1))
        nudenet.judge(picture, prompt)
        said = (os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"))
        session = nudenet._detector.onnx_session.get_session_options()
        counts = (os.environ["OMP_NUM_THREADS"], str(session.intra_op_num_threads))
        return Verdict(reasons=(*said, *counts))


def look_around(pipe: Connection, settings: JudgeSettings) -> None:
    judge_main.main(pipe, settings, lambda _: Surroundings())


def test_a_judge_leaves_the_card_the_network_and_half_of_the_cores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    judge = JudgeProcess(settings(tmp_path), PATIENCE, main=look_around)
    card, offline, threads, session_threads = judge.judge("a", 0, WEBP, "").reasons
    judge.stop()
    assert (card, offline, session_threads) == ("", "1", "1")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    assert int(threads) == judge_main.thread_count(cores)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 2), (8, 4), (128, 4)])
def test_networks_of_the_judge_compute_with_half_of_the_cores_at_most(cores: int, threads: int):
    assert judge_main.thread_count(cores) == threads


@pytest.mark.parametrize(
    ("devices", "cores", "judges"),
    [(1, 128, 1), (8, 2, 1), (8, 15, 1), (2, 16, 2), (8, 24, 3), (3, 64, 3), (8, 64, 4)],
)
def test_there_are_as_many_judges_as_devices_need_and_half_of_the_cores_allow(
    devices: int, cores: int, judges: int
):
    assert judge_main.judge_count(devices, cores) == judges


def test_a_judge_that_takes_long_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judge_main, "cores", lambda: range(16))
    pool = JudgePool.of_devices(2, settings(tmp_path), safety_stand_in.main)
    assert pool.start() == "NudeNet, horde_safety"
    assert {log.name for log in tmp_path.glob("*.log")} == {"judge.log", "judge-1.log"}
    slow, _ = vars(pool)["_judges"]
    os.kill(pid_of(slow), signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(pool.judge, "a", number, WEBP, "a cat") for number in range(2)]
        done, left = wait(asked, return_when=FIRST_COMPLETED)
        assert (len(done), len(left)) == (1, 1)
        os.kill(pid_of(slow), signal.SIGCONT)
        assert [each.result() for each in asked] == [Verdict(), Verdict()]
    pool.kill()
    with pytest.raises(JudgeFailed):
        pool.judge("a", 2, WEBP, "a cat")


def test_a_judge_writes_nothing_into_the_owners_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    judge = JudgeProcess(settings(tmp_path, horde_safety=False), PATIENCE)
    assert judge.judge("a", 0, WEBP, "a cat") == Verdict()
    judge.stop()
    assert list(home.rglob("*")) == []


def test_the_bridge_imports_none_of_what_judges_need():
    heavy = ("torch", "onnxruntime", "cv2", "nudenet", "horde_safety")
    script = (
        "import sys, worker.children.judge, worker.safety.policy, worker.safety.censorship\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"

"""A worker that is killed, started again, paused and drained: real processes, real pictures."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.owner import Command, Home, assert_nothing_left, config, make_home, wait_for
from tests.support.reference_server import reference_server
from tests.support.sandbox_client import CLIENT_KEY, MODELS, Api
from worker.children.signals import StopSignals
from worker.cli.exit_codes import ExitCode
from worker.cli.serving import run_lives
from worker.jobs.ledger import FILE
from worker.sandbox import Reply, Sandbox, State
from worker.service.orders import MAINTENANCE, STARTING, Order, Orders
from worker.service.overview import Overview
from worker.service.state_folder import StateFolder

SMALL = {"width": 64, "height": 64, "steps": 4}


def states_in(ledger: Path) -> list[str]:
    """What the worker's ledger says of its images at this moment."""
    if not ledger.is_file():
        return []
    with closing(sqlite3.connect(ledger, timeout=120)) as db:
        tables = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'images'").fetchone()
        return [row[0] for row in db.execute("SELECT state FROM images")] if tables[0] else []


@pytest.fixture
def ledger(home: Home) -> Path:
    return home.folder / "state" / FILE


def wait_until_told(home: Home, doing: str) -> None:
    """Until `status` says so. It is asked once: to ask it again and again would slow the worker."""
    orders = Orders(home.folder / "state")
    wait_for(lambda: (told := orders.answered()) and told.doing == doing)
    assert re.search(rf"^worker: +{doing}\b", home.run("status")[1])


def test_a_worker_killed_between_generation_and_submit_delivers_when_it_starts_again(
    home: Home, horde: Sandbox, ledger: Path
):
    home.write(config(horde))
    horde.faults.inject("submit", Reply(503))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        asked = client.ask_id(SMALL)
        wait_for(lambda: any(each.upload_bytes for each in horde.books().of_request(asked)))
        assert states_in(ledger) == ["made"]
        worker.send_signal(signal.SIGKILL)
    horde.faults.clear()
    with home.start("run") as worker:
        wait_for(lambda: horde.books().request(asked).done, 30)
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=120)
    (image,) = horde.books().of_request(asked)
    assert (image.state, image.upload_bytes > 0) == (State.ok, True), output
    assert states_in(ledger) == ["submitted"]
    assert_nothing_left(worker.pid)


def test_a_worker_killed_over_its_jobs_makes_them_when_it_starts_again(
    home: Home, horde: Sandbox, ledger: Path
):
    """One of them was at work and one waited; nothing of either is given to anybody else."""
    home.write(config(horde, more="max_batch: 2\n"))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        asked = [client.ask_id(SMALL | {"steps": 100}), client.ask_id(SMALL | {"n": 2})]
        wait_for(lambda: states_in(ledger) == ["popped"] * 3)
        children = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive, "children outlived their worker"
    assert b"a red circle" in everything_in(ledger.parent)
    with home.start("run") as worker:
        wait_for(lambda: all(horde.books().request(id).done for id in asked))
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=120)
    assert "jobs from before the restart that can still be made: 2" in output
    states = [image.state for id in asked for image in horde.books().of_request(id)]
    assert states == [State.ok] * 3, output
    assert b"a red circle" not in everything_in(ledger.parent)
    assert_nothing_left(worker.pid)


def everything_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.is_file())


def test_pause_resume_drain_and_status_while_it_runs(home: Home, horde: Sandbox):
    home.write(config(horde))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        asked = client.ask_id(SMALL)
        wait_for(lambda: bool(horde.books().generations))
        assert home.run("pause")[1].strip() in ("the worker is pausing", "the worker is paused")
        wait_until_told(home, "paused")
        assert home.run("status", "--json")[0] == ExitCode.PAUSED
        assert horde.books().request(asked).done
        wait_for(lambda: len(psutil.Process(worker.pid).children(recursive=True)) <= 2, 30)
        later = client.ask_id(SMALL)
        assert "you paused it; ./horde" not in home.run("status")[1], "no command of this folder"
        assert "-m worker --home" in home.run("status")[1]
        assert home.run("resume") == (ExitCode.OK, "the worker is serving\n")
        wait_for(lambda: horde.books().request(later).done, 60)
        assert home.run("drain") == (ExitCode.OK, "the worker is draining\n")
        output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    code, told = home.run("status")
    assert code == ExitCode.FAILED
    assert re.search("^worker: +not running$", told, re.MULTILINE)
    assert re.search(r"submitted: +2 images", told)
    assert_nothing_left(worker.pid)


def test_a_worker_that_waits_for_its_first_model_says_so_and_ends_when_it_is_drained(home: Home):
    (home.folder / "models").unlink()  # all tests' one, where nothing is to be downloaded to
    (home.folder / "models").mkdir()
    with reference_server() as site:
        site.offer_model("One")
        site.hold("/files/One.safetensors")
        home.write(
            f"horde_url: {site.url}\nmodel_reference: {site.url}/reference\napi_key: a-key\n"
            "dreamer_name: tester\nmodels_to_load: [One]\n"
        )
        (home.folder / "state").mkdir()
        Orders(home.folder / "state").answer(
            Overview(doing="serving")
        )  # as an earlier life that was killed
        with home.start("run") as worker:
            wait_until_told(home, STARTING)
            assert home.run("drain") == (ExitCode.OK, "the worker is ended\n")
            output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    assert "serving starts with the first one" in output
    assert (home.folder / "models" / "compvis" / "One.safetensors.part").is_file()


def test_a_worker_that_has_just_begun_is_drained_although_it_forgets_earlier_orders(home: Home):
    folder = home.folder / "state"
    orders = Orders(folder)
    state = StateFolder.open(folder)
    orders.end()  # the last word of an earlier life
    with home.start("drain") as drain:
        wait_for(lambda: orders.is_given(Order.drain), every=0.01)
        orders.begin()  # a moment after it took its folder, as a slow machine may let it
        wait_for(lambda: orders.is_given(Order.drain), every=0.01)
        orders.end()
        state.close()
        output, _ = drain.communicate(timeout=120)
    assert (drain.returncode, output) == (ExitCode.OK, "the worker is ended\n")


def test_a_worker_that_was_drained_serves_when_it_is_started_again(home: Home, horde: Sandbox):
    home.write(config(horde))
    with home.start("run") as worker:
        wait_for(lambda: horde.books().tally.calls.get("pop", 0) > 0)
        home.run("drain")
        worker.communicate(timeout=120)
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        asked = client.ask_id(SMALL)
        wait_for(lambda: horde.books().request(asked).done, 60)
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK


def test_ctrl_c_ends_a_later_life_that_does_not_serve_yet(tmp_path: Path):
    (tmp_path / "state").mkdir()
    lives: list[str] = []

    def live() -> None:
        lives.append("begun")
        if len(lives) == 1:
            with signals.counted():  # it serves
                Orders(tmp_path / "state").give(Order.restart)
        else:
            signals.came()

    with closing(StopSignals()) as signals, pytest.raises(KeyboardInterrupt):
        run_lives(live, tmp_path, signals)


def test_the_end_of_the_terminal_finishes_the_job_at_work(home: Home, horde: Sandbox):
    home.write(config(horde))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        asked = client.ask_id(SMALL | {"steps": 10})
        wait_for(lambda: bool(horde.books().generations))
        os.killpg(worker.pid, signal.SIGHUP)
        output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    assert [image.state for image in horde.books().of_request(asked)] == [State.ok], output


def test_orders_without_a_worker_say_so(home: Home, horde: Sandbox):
    home.write(config(horde))
    assert home.run("drain")[0] == ExitCode.FAILED
    assert home.run("pause", "soon")[0] == ExitCode.USAGE
    code, output = home.run("pause", "2h")
    assert (code, "if it is started, it is paused until" in output) == (ExitCode.OK, True)
    with home.start("run") as worker:
        wait_until_told(home, "paused")
        assert horde.books().tally.calls.get("pop", 0) == 0
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK


def test_the_configuration_is_closed_to_others(home: Home, horde: Sandbox):
    home.write(config(horde, key="wrong-key-wrong-key-00"))
    file = home.folder / "bridgeData.yaml"
    file.chmod(0o644)
    _, output = home.run("run")
    assert "others could read it" in output
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full_while_it_serves_stops_nothing(home: Home, horde: Sandbox):
    """A limit on what the running process may write plays the full disk."""
    home.write(config(horde))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        wait_for(lambda: horde.books().tally.calls.get("pop", 0) > 0)
        process = psutil.Process(worker.pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (0, -1))
        asked = client.ask_id(SMALL)
        wait_for(lambda: horde.books().request(asked).done)
        process.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    assert [image.state for image in horde.books().of_request(asked)] == [State.ok]
    assert output.count("can't be written") == 1
    assert "Traceback" not in output


# ---- one worker that serves, for tests that leave it as it is ----------------------------------


@dataclass
class Serving:
    home: Home
    horde: Sandbox
    worker: Command


@pytest.fixture(scope="module")
def serving(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Serving]:
    home = make_home(tmp_path_factory.mktemp("serving"), checkpoint)
    with Sandbox(MODELS, limits={}) as horde:
        home.write(config(horde))
        with home.start("run") as worker:
            wait_for(lambda: horde.books().tally.calls.get("pop", 0) > 0)
            yield Serving(home, horde, worker)
            worker.send_signal(signal.SIGTERM)
            output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output


def test_two_workers_with_one_state_folder_refuse_each_other(serving: Serving):
    code, output = serving.home.run("run")
    assert code == ExitCode.TAKEN
    assert f"process {serving.worker.pid} runs with" in output
    assert "Traceback" not in output


def test_the_worker_listens_nowhere_and_the_local_horde_on_loopback_alone(serving: Serving):
    process = psutil.Process(serving.worker.pid)
    theirs = [
        socket
        for each in (process, *process.children(recursive=True))
        for socket in each.net_connections("inet")
    ]
    ours = psutil.Process().net_connections("inet")
    assert not [socket for socket in theirs if socket.status == psutil.CONN_LISTEN]
    listening = {socket.laddr.ip for socket in ours if socket.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_status_says_maintenance_why_and_what_ends_it(serving: Serving):
    serving.horde.set_maintenance("tester", True, "a new fan")
    wait_until_told(serving.home, MAINTENANCE)
    told = serving.home.run("status")[1]
    assert "a new fan" in told
    assert "worker --maintenance off" in told

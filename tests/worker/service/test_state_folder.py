"""One worker a state folder, readable by its owner alone, and orders from another terminal."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from hordelib.files.whole_files import (
    anybody_may_write,
    close_to_others,
    open_to_append,
    write_whole,
)
from tests.support.owner import PROJECT, wait_for
from tests.support.small_disk import small_disk
from worker.children.child_side import open_log as open_child_log
from worker.errors import StateTaken
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.models.files.checksums import VerifiedFiles
from worker.net.refusal_memo import DownloadMemo
from worker.service.logs import open_log
from worker.service.orders import Given, Order, Orders
from worker.service.overview import Overview
from worker.service.state_folder import StateFolder, is_taken

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from worker.service.state_folder import StateFolder\n"
    "folder = StateFolder.open(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)\n"
)


def test_a_second_worker_is_refused_until_the_first_one_is_gone_however_it_ends(tmp_path: Path):
    state = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_taken(state)
        with pytest.raises(StateTaken, match=f"process {holder.pid} runs with"):
            StateFolder.open(state)
        holder.send_signal(signal.SIGKILL)
    assert not is_taken(state)
    with closing(StateFolder.open(state)) as ours:
        assert not ours.trouble


def test_two_containers_with_one_volume_refuse_each_other(tmp_path: Path):
    """Each has processes of its own numbers, and both workers the first one."""
    container = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c"]
    if subprocess.run([*container, ""], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a namespace")
    state = tmp_path / "state"
    with subprocess.Popen(
        [*container, HOLD, str(state)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        assert (state / "pid").read_text() == "1"
        second = subprocess.run(
            [*container, HOLD, str(state)], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        first.kill()
    assert f"a worker, perhaps in another container, runs with {state} already" in second.stderr
    wait_for(lambda: not is_taken(state))


def test_a_folder_that_was_deleted_is_taken_again(tmp_path: Path):
    state = tmp_path / "state"
    with closing(StateFolder.open(state)) as ours:
        shutil.rmtree(state)
        ours.keep()
        assert is_taken(state)
        ours.keep()
        assert ours.holder == os.getpid()


def test_who_lost_it_to_another_worker_ends(tmp_path: Path):
    state = tmp_path / "state"
    with closing(StateFolder.open(state)) as ours:
        shutil.rmtree(state)
        with closing(StateFolder.open(state)), pytest.raises(StateTaken):
            ours.keep()


def test_it_is_closed_to_others(tmp_path: Path):
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    (state / "lock").touch(0o644)
    with closing(StateFolder.open(state)):
        assert state.stat().st_mode & 0o077 == 0


@pytest.fixture
def open_umask() -> Generator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def insist_on_closed(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.usefixtures("open_umask")
def test_state_and_logs_are_closed_whatever_the_umask(tmp_path: Path):
    state, logs = tmp_path / "state", tmp_path / "logs"
    logs.mkdir(0o777)
    with closing(StateFolder.open(state)), closing(Ledger(state / LEDGER)):
        Orders(state).begin()
        write_whole(state / "seconds.json", b"{}")
        insist_on_closed(state)
        assert (state / f"{LEDGER}-wal").is_file()
    with closing(open_log(logs / "dreamer.log")) as log:
        log.emit(logging.makeLogRecord({"msg": "a line"}))
    with open_child_log(logs / "engine.log") as file:
        file.write("a line\n")
    insist_on_closed(logs)
    assert {path.name for path in logs.iterdir()} == {"dreamer.log", "engine.log"}


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize(("umask", "mode"), [(0, 0o664), (0o022, 0o644), (0o027, 0o640)])
def test_what_lies_in_the_models_folder_is_for_whom_the_umask_lets(
    tmp_path: Path, umask: int, mode: int
):
    os.umask(umask)
    (tmp_path / "a").touch(0o600)
    VerifiedFiles(tmp_path).found(tmp_path / "a")
    DownloadMemo(tmp_path / "refused.json").remember_version("one", 7, 60.0)
    open_to_append(tmp_path / "a.part").close()
    for name in ("verified.json", "refused.json", "a.part"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name


def test_a_file_in_the_folders_place_is_told_with_the_remedy(tmp_path: Path):
    (tmp_path / "state").write_text("a note")
    with closing(StateFolder.open(tmp_path / "state")) as state:
        assert state.trouble.endswith(
            "state is a file, and the worker needs a folder of that name: move the file away"
        )


@pytest.mark.usefixtures("open_umask")
def test_no_link_is_followed_where_something_is_written(tmp_path: Path):
    """As another account of this machine could leave them in a folder that it may write to."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir(0o777)
    for name in ("pid", "order.new", "verified.json.new", "dreamer.log", "engine.log", "a.part"):
        (folder / name).symlink_to(victim)
    with closing(StateFolder.open(folder)) as state:
        assert (state.trouble, state.holder) == ("", os.getpid())
    write_whole(folder / "verified.json", b"{}")
    write_whole(folder / "order", b"drain")
    with open_child_log(folder / "engine.log") as file:
        file.write("nowhere")
    with pytest.raises(OSError, match="symbolic"):
        open_log(folder / "dreamer.log")
    with pytest.raises(OSError, match="symbolic"):
        open_to_append(folder / "a.part")
    assert victim.read_text() == "precious"
    assert not (folder / "verified.json").is_symlink()


def test_a_folder_that_anybody_can_change_is_known(tmp_path: Path):
    tmp_path.chmod(0o775)
    assert not anybody_may_write(tmp_path)
    tmp_path.chmod(0o777)
    assert anybody_may_write(tmp_path)
    assert not anybody_may_write(tmp_path / "nothing")


def test_a_file_that_others_can_read_is_closed_once(tmp_path: Path):
    file = tmp_path / "bridgeData.yaml"
    file.touch(0o644)
    assert (close_to_others(file), close_to_others(file)) == (True, False)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_can_not_be_written_is_trouble_and_no_end(tmp_path: Path):
    with (
        small_disk(tmp_path / "disk", 100, "ro") as disk,
        closing(StateFolder.open(disk / "state")) as folder,
    ):
        assert "Read-only" in folder.trouble


def test_an_order_and_its_answer_pass_through_the_folder(tmp_path: Path):
    orders = Orders(tmp_path)
    assert (orders.given(), orders.answered()) == (None, None)
    orders.give(Order.pause)
    overview = Overview(doing="paused", why="its owner plays", kudos=3.5)
    orders.answer(overview)
    again = Orders(tmp_path)
    assert (again.given(), again.answered()) == (Given(order=Order.pause), overview)
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


def test_garbage_is_no_order(tmp_path: Path):
    (tmp_path / "order").write_bytes(b"\xff\xfe rm -rf")
    assert Orders(tmp_path).given() is None


def test_an_order_to_drain_is_for_one_life_of_the_worker(tmp_path: Path):
    for given, begun in (
        (Order.drain, Order.serve),
        (Order.stop, Order.serve),
        (Order.pause, Order.pause),
    ):
        Orders(tmp_path).give(given)
        Orders(tmp_path).begin()
        assert Orders(tmp_path).is_given(begun)


def test_looking_whether_a_worker_runs_keeps_none_from_starting(tmp_path: Path):
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            is_taken(tmp_path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            with closing(StateFolder.open(tmp_path)) as ours:
                assert not ours.trouble
    finally:
        over.set()
        looking.join()

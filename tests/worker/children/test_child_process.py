"""A child process that dies, hangs, or talks nonsense: real ones that do.

Each child imports this module, so that it imports little itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from worker.children.child_side import HEARTBEAT_SECONDS, Child, leave_no_semaphore, set_up_process
from worker.children.messages import MOST_REPORT_BYTES, Alive, Ready, Stepped, Stop
from worker.children.process import MOST_UNREAD, cause_of_death, count_oom_kills
from worker.children.supervisor import Limit, Supervisor

PROJECT = Path(__file__).parents[3]
NOTICED_SECONDS = 10.0  # on a busy machine; half of what a child is otherwise waited for
SILENCE = 1.5  # more than a child that is well lets pass
LARGE = bytes(64 << 20)  # more than a pipe holds


class Gone(Exception):
    """The child is dead."""


@pytest.fixture(autouse=True)
def no_thread_outlives_its_child() -> Generator[None]:
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + NOTICED_SECONDS
    while left := _threads_since(before):
        assert time.monotonic() < end, left
        time.sleep(0.02)


def _threads_since(before: set[threading.Thread]) -> list[threading.Thread]:
    """But for the one that starts processes, as long as the program lives."""
    new = set(threading.enumerate()) - before
    return [thread for thread in new if thread.name != "spawner"]


def child_of(main: Callable[[Any, Any], None], folder: Path) -> Supervisor:
    return Supervisor("engine", main, folder, log_file=folder / "engine.log", gone=Gone)


@contextmanager
def started(main: Callable[[Any, Any], None], folder: Path) -> Generator[Supervisor]:
    child = child_of(main, folder)
    child.start(20)
    try:
        yield child
    finally:
        child.kill()


def pid_of(child: Supervisor) -> int:
    assert child.pid is not None
    return child.pid


def receive(child: Supervisor, silence: float = 20) -> object:
    return child.receive(Limit(20, "for a step"), silence=silence)


# What the children do. All are ready first, so that what comes after is what the test is about.


def obey(pipe: Connection, folder: Path) -> None:
    """A child as it should be: repeats what it is sent."""
    set_up_process(folder / "engine.log")
    child = Child(pipe)
    child.report(Ready("a device"))
    for command in child.commands():
        child.report(command)


def exit_with_3(_pipe: Connection, _folder: Path) -> NoReturn:
    os._exit(3)


def raise_at_start(_pipe: Connection, _folder: Path) -> NoReturn:
    sys.stderr.close()  # the traceback is not for the terminal of the tests
    raise RuntimeError


def never_start(_pipe: Connection, _folder: Path) -> None:
    time.sleep(60)


def be_ready_in_other_words(pipe: Connection, _folder: Path) -> None:
    pipe.send(Stepped(1, 1, 1))
    time.sleep(60)


def write_text(pipe: Connection) -> None:
    os.write(pipe.fileno(), b"CUDA error: an illegal memory access was encountered\n")


def write_no_pickle(pipe: Connection) -> None:
    pipe.send_bytes(b"\x80\x05garbage")


def write_nothing(pipe: Connection) -> None:
    pipe.send_bytes(b"")


def write_negative_length(pipe: Connection) -> None:
    os.write(pipe.fileno(), struct.pack("!i", -7))


def write_absurd_length(pipe: Connection) -> None:
    os.write(pipe.fileno(), struct.pack("!iQ", -1, 1 << 40) + bytes(1000))


def write_a_length_above_the_limit(pipe: Connection) -> None:
    os.write(pipe.fileno(), struct.pack("!i", MOST_REPORT_BYTES + 1) + bytes(1000))


def send_a_wrong_object(pipe: Connection) -> None:
    pipe.send({"a": "dictionary"})


def send_without_end(pipe: Connection) -> None:
    for number in range(MOST_UNREAD + 1000):
        pipe.send(Stepped(number, 1, 1))


NONSENSE = {
    each.__name__: each
    for each in (
        write_text,
        write_no_pickle,
        write_nothing,
        write_negative_length,
        write_absurd_length,
        write_a_length_above_the_limit,
        send_a_wrong_object,
    )
}
UNHEARD = {"send_without_end": send_without_end, "send_a_wrong_object": send_a_wrong_object}


def talk_nonsense(pipe: Connection, folder: Path) -> None:
    """Waits for the name of a kind of nonsense, talks it, and hopes to live."""
    obedient = Child(pipe)
    obedient.report(Ready("a device"))
    (NONSENSE | UNHEARD)[pipe.recv()](pipe)
    time.sleep(60)


def end_in_the_middle(pipe: Connection, _folder: Path) -> None:
    """Half a picture of 12 MB, then the signal that it is told."""
    pipe.send(Ready("a device"))
    ending = pipe.recv()
    os.write(pipe.fileno(), struct.pack("!i", 12 << 20))
    for _ in range(6):
        _write_all(pipe, bytes(1 << 20))
    os.kill(os.getpid(), ending)


def _write_all(pipe: Connection, content: bytes) -> None:
    while content:
        content = content[os.write(pipe.fileno(), content) :]


def never_read(pipe: Connection, _folder: Path) -> None:
    """Says that it is alive, and reads nothing."""
    pipe.send(Ready("a device"))
    while True:
        time.sleep(0.1)
        pipe.send(Alive())


def close_all_files(pipe: Connection, _folder: Path) -> None:
    """Also those by which multiprocessing would know of its death."""
    pipe.send(Ready("a device"))
    os.closerange(3, 1000)
    time.sleep(60)


def leave_a_child_with_the_pipe(pipe: Connection, folder: Path) -> None:
    """Nobody sees the pipe's end then."""
    handle = os.dup(pipe.fileno())
    heir = subprocess.Popen(["sleep", "60"], close_fds=False, pass_fds=[handle])
    (folder / "heir").write_text(str(heir.pid), "utf-8")
    pipe.send(Ready("a device"))
    os.kill(os.getpid(), signal.SIGKILL)


# The tests.


def test_a_child_is_started_spoken_with_and_ended(tmp_path: Path):
    child = child_of(obey, tmp_path)
    assert child.start(20) == "a device"
    child.send(Stepped(1, 2, 3), 5)
    assert receive(child) == Stepped(1, 2, 3)
    child.stop(10)
    assert not child.is_alive
    assert child.silent_seconds == 0
    with pytest.raises(Gone, match="exit code 0"):
        child.send(Stepped(1, 2, 3), 5)


@pytest.mark.parametrize(
    ("main", "limit", "reason"),
    [
        (exit_with_3, 20, "ended with exit code 3"),
        (raise_at_start, 20, "ended with exit code 1"),
        (never_start, 1.5, "took longer than 1.5 s to start"),
        (be_ready_in_other_words, 20, "spoke garbage"),
    ],
)
def test_a_child_that_refuses_to_start_is_told_with_its_log(
    tmp_path: Path, main: Callable[[Any, Any], None], limit: float, reason: str
):
    child = child_of(main, tmp_path)
    with pytest.raises(Gone, match=rf"{reason} \(log: .*engine\.log\)"):
        child.start(limit)
    assert not child.is_alive


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_child_that_talks_nonsense_is_killed(tmp_path: Path, nonsense: str):
    with started(talk_nonsense, tmp_path) as child:
        memory_bytes = psutil.Process().memory_info().rss
        child.send(nonsense, 5)
        spoken = time.monotonic()
        with pytest.raises(Gone, match="the engine spoke garbage"):
            receive(child)
        assert time.monotonic() - spoken < NOTICED_SECONDS
        assert not child.is_alive
        assert psutil.Process().memory_info().rss - memory_bytes < 100 << 20


@pytest.mark.parametrize("nonsense", UNHEARD)
def test_nonsense_is_noticed_when_nobody_listens(tmp_path: Path, nonsense: str):
    with started(talk_nonsense, tmp_path) as child:
        child.send(nonsense, 5)
        _wait_until(lambda: not child.is_alive)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_dies_in_the_middle_of_a_message_is_noticed(
    tmp_path: Path, ending: signal.Signals
):
    with started(end_in_the_middle, tmp_path) as child:
        child.send(ending, 5)
        spoken = time.monotonic()
        with pytest.raises(Gone, match=f"the engine process was ended by {ending.name} "):
            receive(child)
        assert time.monotonic() - spoken < NOTICED_SECONDS


def test_a_child_that_freezes_in_the_middle_of_a_message_is_killed(tmp_path: Path):
    with started(end_in_the_middle, tmp_path) as child:
        child.send(signal.SIGSTOP, 5)
        with pytest.raises(Gone, match=r"the engine hung: no word for 1\.5 s"):
            receive(child, SILENCE)
        assert not psutil.pid_exists(pid_of(child))


def test_a_child_that_died_or_froze_while_idle_is_noticed_by_the_next_job(tmp_path: Path):
    with started(obey, tmp_path) as child:
        os.kill(pid_of(child), signal.SIGSTOP)
        _wait_until(lambda: child.silent_seconds > SILENCE)
        child.send(Stepped(1, 1, 1), 5)
        sent = time.monotonic()
        with pytest.raises(Gone, match="hung"):
            receive(child, SILENCE)
        assert time.monotonic() - sent < NOTICED_SECONDS
        child.start(20)
        os.kill(pid_of(child), signal.SIGKILL)
        _wait_until(lambda: not child.is_alive)
        with pytest.raises(Gone, match="SIGKILL"):
            child.send(Stepped(1, 1, 1), 5)


def test_a_child_says_that_it_is_alive_where_it_says_nothing_else():
    ours, theirs = multiprocessing.Pipe()
    child = Child(theirs)
    with ThreadPoolExecutor(1) as pool:
        commands = pool.submit(lambda: list(child.commands()))
        words = [Stepped(1, step, 8) for step in range(8)]
        for word in words:
            child.report(word)
            time.sleep(HEARTBEAT_SECONDS / 4)
        told = [ours.recv() for _ in words]
        quiet = time.monotonic()
        told += [ours.recv(), ours.recv()]
        quiet_seconds = time.monotonic() - quiet
        ours.send(Stop())  # before anything can fail: the process ends with its pipe
        assert commands.result(5) == []
    _wait_until(lambda: not any(each.name == "heartbeat" for each in threading.enumerate()))
    ours.close()
    theirs.close()
    assert told == [*words, Alive(), Alive()]
    assert HEARTBEAT_SECONDS < quiet_seconds < 2 * HEARTBEAT_SECONDS + NOTICED_SECONDS


@pytest.mark.parametrize("main", [never_read, obey])
def test_a_child_that_does_not_read_what_it_is_sent_is_killed(
    tmp_path: Path, main: Callable[[Any, Any], None]
):
    with started(main, tmp_path) as child:
        if main is obey:
            os.kill(pid_of(child), signal.SIGSTOP)
        sent = time.monotonic()
        with pytest.raises(Gone, match=r"the engine hung: it read nothing for 0\.5 s"):
            child.send(LARGE, 0.5)
        assert time.monotonic() - sent < 0.5 + NOTICED_SECONDS
        assert not child.is_alive


def test_a_child_that_can_not_be_killed_is_given_up_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """As one that hangs in a driver's call: SIGKILL has to wait for that."""
    monkeypatch.setattr("worker.children.process.KILL_SECONDS", 0.2)
    child = child_of(obey, tmp_path)
    child.start(20)
    stuck = pid_of(child)
    with monkeypatch.context() as patch:
        patch.setattr(BaseProcess, "kill", BaseProcess.is_alive)  # which does nothing to it
        os.kill(stuck, signal.SIGSTOP)
        child.kill()
    assert psutil.pid_exists(stuck)
    assert not child.is_alive
    assert "can't be killed" in caplog.text
    waited_for = [each.pid for each in multiprocessing.active_children()]
    child.start(20)
    child.send(Stepped(1, 2, 3), 5)
    assert receive(child) == Stepped(1, 2, 3)
    assert pid_of(child) != stuck
    child.stop(5)
    os.kill(stuck, signal.SIGKILL)
    assert stuck not in waited_for, "our own process would not end"


def test_a_child_that_closes_all_its_files_is_killed(tmp_path: Path):
    with started(close_all_files, tmp_path) as child:
        with pytest.raises(Gone, match="the engine closed its pipe"):
            receive(child)
        assert not psutil.pid_exists(pid_of(child))


def test_a_death_is_noticed_although_somebody_keeps_the_pipe_open(tmp_path: Path):
    with started(leave_a_child_with_the_pipe, tmp_path) as child:
        began = time.monotonic()
        with pytest.raises(Gone, match="SIGKILL"):
            receive(child)
        assert time.monotonic() - began < NOTICED_SECONDS
        _wait_until(lambda: not any(each.name == "engine-reader" for each in threading.enumerate()))
    psutil.Process(int((tmp_path / "heir").read_text("utf-8"))).kill()


def test_the_seconds_of_silence_are_there_to_see(tmp_path: Path):
    child = child_of(obey, tmp_path)
    assert child.silent_seconds == 0
    child.start(20)
    time.sleep(SILENCE)
    _wait_until(lambda: child.silent_seconds < SILENCE)
    os.kill(pid_of(child), signal.SIGSTOP)
    _wait_until(lambda: child.silent_seconds > SILENCE)
    child.kill()
    assert child.silent_seconds == 0


def test_killing_it_from_another_thread_ends_what_waits_for_it(tmp_path: Path):
    with started(obey, tmp_path) as child, ThreadPoolExecutor(1) as feeder:
        waiting = feeder.submit(receive, child)
        child.kill()
        with pytest.raises(Gone, match="the engine was ended by the worker"):
            waiting.result(NOTICED_SECONDS)


def test_what_a_child_said_before_it_died_is_heard_first(tmp_path: Path):
    with started(obey, tmp_path) as child:
        child.send(Stepped(1, 2, 3), 5)
        child.stop(10)
        assert receive(child) == Stepped(1, 2, 3)
        with pytest.raises(Gone, match="exit code 0"):
            receive(child)


def test_it_lives_on_when_the_thread_that_started_it_has_ended(tmp_path: Path):
    child = child_of(obey, tmp_path)
    starter = threading.Thread(target=child.start, args=[20])
    starter.start()
    starter.join()
    child.send(Stepped(1, 2, 3), 5)
    assert receive(child) == Stepped(1, 2, 3)
    child.kill()


PATIENT = """
import sys, threading
from pathlib import Path
from tests.worker.children.test_child_process import child_of, obey
from worker.children import supervisor
from worker.children.messages import Stepped
from worker.children.supervisor import Limit

if __name__ == "__main__":
    supervisor.STANDSTILL_SECONDS = 1.2
    child = child_of(obey, Path(sys.argv[1]))
    child.start(20)

    def speak():
        input()
        child.send(Stepped(1, 2, 3), 5)

    threading.Thread(target=speak, daemon=True).start()
    limits = Limit(3.5, "for a step"), Limit(60, "for a whole job")
    print("waiting", flush=True)
    print(child.receive(*limits, silence=3.5), flush=True)
    child.kill()
"""


def test_a_child_is_not_blamed_for_a_time_in_which_its_bridge_stood_still(tmp_path: Path):
    """As after SIGSTOP of them all: the engine and its job were killed for it."""
    (tmp_path / "bridge.py").write_text(PATIENT, "utf-8")
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "bridge.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as bridge:
        assert bridge.stdin is not None
        assert bridge.stdout is not None
        assert bridge.stdout.readline() == "waiting\n"
        child = psutil.Process(bridge.pid).children(recursive=True)
        os.killpg(bridge.pid, signal.SIGSTOP)
        time.sleep(3.7)  # longer than both limits
        os.kill(bridge.pid, signal.SIGCONT)  # first of all: the child says nothing for a while
        time.sleep(0.6)  # in which it would be blamed
        for process in child:
            process.resume()
        output, _ = bridge.communicate("speak\n", 20)
    assert output == f"{Stepped(1, 2, 3)}\n"


ORPHANAGE = """
import os, signal, sys
from pathlib import Path
from tests.worker.children.test_child_process import child_of, obey

if __name__ == "__main__":
    child = child_of(obey, Path(sys.argv[1]))
    child.start(20)
    if sys.argv[2] == "frozen":
        os.kill(child.pid, signal.SIGSTOP)
    print(child.pid, flush=True)
    input()
"""


@pytest.mark.parametrize(
    "state",
    [
        "at work",
        pytest.param(
            "frozen",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills it"),
        ),
    ],
)
def test_no_child_outlives_its_killed_bridge(tmp_path: Path, state: str):
    (tmp_path / "bridge.py").write_text(ORPHANAGE, "utf-8")
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "bridge.py"), str(tmp_path), state],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as bridge:
        assert bridge.stdout is not None
        orphan = psutil.Process(int(bridge.stdout.readline()))
        bridge.kill()
    _wait_until(lambda: _is_dead(orphan), NOTICED_SECONDS)


@pytest.mark.parametrize(
    ("exit_code", "oom_kills", "told"),
    [
        (0, 0, "ended with exit code 0"),
        (3, 1, "ended with exit code 3"),
        (-signal.SIGSEGV, 0, "was ended by SIGSEGV"),
        (-signal.SIGSEGV, 1, "was ended by SIGSEGV"),
        (-signal.SIGKILL, 0, "was ended by SIGKILL"),
        (
            -signal.SIGKILL,
            1,
            "was ended by SIGKILL: the system ran out of memory"
            " (remedy: a larger ram_to_leave_free)",
        ),
        (
            -signal.SIGBUS,
            0,
            "was ended by SIGBUS: a file that it had in memory was cut off, or can't be read any"
            " more",
        ),
        (-40, 0, "was ended by signal 40"),
    ],
)
def test_the_obituary_says_what_it_died_of(exit_code: int, oom_kills: int, told: str):
    assert cause_of_death("engine", exit_code, oom_kills) == f"the engine process {told}"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' own counter")
def test_the_system_counts_what_it_killed_for_memory():
    assert f"oom_kill {count_oom_kills()}\n" in Path("/proc/vmstat").read_text("ascii")


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_until(condition: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


LOGGING = """
import logging, os, sys
from pathlib import Path
from worker.children import child_side

child_side.LOG_BYTES, child_side.LOG_SECONDS = 10_000, 0.01
file = Path(sys.argv[1])
child_side.set_up_process(file)
put_aside = file.with_suffix(".old.log")
while not (put_aside.is_file() and file.is_file() and os.fstat(2).st_ino == file.stat().st_ino):
    logging.info("a job")
    print("a library's own words", file=sys.stderr)
logging.info("the last word")
"""


def draw_a_bar(pipe: Connection, folder: Path) -> None:
    set_up_process(folder / "engine.log")
    leave_no_semaphore()
    from tqdm import tqdm

    list(tqdm([1, 2], disable=True))
    child = Child(pipe)
    child.report(Ready("a bar"))
    list(child.commands())


KILLED_AFTER_A_BAR = """
import sys
from pathlib import Path
from tests.worker.children.test_child_process import child_of, draw_a_bar

child = child_of(draw_a_bar, Path(sys.argv[1]))
child.start(60)
child.kill()
"""


def test_a_killed_child_leaves_no_semaphore_to_be_warned_of(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-P", "-c", KILLED_AFTER_A_BAR, str(tmp_path)],
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,  # until multiprocessing's own process has ended, too
        text=True,
    )
    assert ended.stderr == ""


def test_the_log_of_a_child_that_lives_for_long_stays_short(tmp_path: Path):
    file = tmp_path / "logs" / "engine.log"
    subprocess.run(
        [sys.executable, "-P", "-c", LOGGING, str(file)],
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    logs = {path.name: path.read_text("utf-8") for path in file.parent.iterdir()}
    assert logs.keys() == {"engine.log", "engine.old.log"}
    assert len(logs["engine.old.log"]) > 10_000
    assert logs["engine.log"].endswith("the last word\n")
    assert "INFO root: a job\na library's own words\n" in logs["engine.old.log"]

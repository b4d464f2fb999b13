"""What months bring, in minutes: `python -m tests.chaos.long_life PART [JOBS]`.

A real worker with stand-ins for engine and judge, which never fail here, serves a local horde. Each
part prints what came of it, and ends with an error where a job was lost. `clock` needs a C
compiler for Linux, `disk` the right to mount, `read_only` and `links` to be root.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from hordelib.job.families import SD1
from tests.chaos import orders
from tests.chaos.customer import Customer
from tests.chaos.figures import Figures
from tests.chaos.monkey import NAME
from tests.chaos.orders import IMPOSSIBLE, UNREADABLE_SEED
from tests.chaos.service import EndedByItself, Service
from tests.chaos.stand_in import LIVES, be_good
from tests.support.family_files import HEADERS, completed, write_header
from tests.support.owner import wait_for
from tests.support.preloaded import FullDisk, SettableClock
from tests.support.sandbox_client import WORKER_KEY, MovableClock
from tests.support.small_disk import failing_disk, fill, small_disk
from worker.cli.exit_codes import ExitCode
from worker.jobs.ledger import FILE as LEDGER
from worker.sandbox import ReferenceModel, Sandbox, State

MODEL = "Plain Model"
DAY_SECONDS = 86400
MOST_GROWTH_BYTES, MOST_MORE_FILES = 16 << 20, 8
LOG_BYTES_PER_IMAGE, STATE_BYTES_PER_IMAGE = 100, 1 << 10  # of the ledger's, for an hour
WRITTEN = {
    "state": (
        *("lock", "pid", "order", "doing", "seconds.json", "memory.json"),
        *("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.sqlite-journal"),
    ),
    "logs": ("dreamer.log", "engine.log", "judge.log", "engine.old.log"),
    "models": ("verified.json", "refused.json"),
}


@dataclass
class Life:
    """One worker, its horde and its client."""

    sandbox: Sandbox
    service: Service
    customer: Customer
    asked: int = 0

    def work(self, images: int, seconds: float = 240) -> str:
        """Ask for so many images, and wait until each has ended; how that went."""
        began, before = time.monotonic(), self.ended()
        self.asked += images
        self.customer.ask_for(self.asked)
        try:
            wait_for(lambda: not self.open_images(), seconds, every=0.5)
        except EndedByItself:
            raise
        except AssertionError:
            say(self.rows(), Figures.of(self.service), self.service.last_words())
            raise
        ended = {state: n - before.get(state, 0) for state, n in self.ended().items()}
        told = " ".join(f"{state} {number}" for state, number in ended.items() if number)
        return f"{told} in {time.monotonic() - began:.1f} s"

    def open_images(self) -> int:
        self.service.insist_on_life()
        books = self.sandbox.open_books()
        waiting = sum(row.waiting for row in books.requests if not (row.done or row.expired))
        return waiting + len(books.in_state(State.processing))

    def ended(self) -> Mapping[str, int]:
        books = self.sandbox.books()
        return {state.value: len(books.in_state(state)) for state in State}

    def rows(self) -> list[tuple[str, int]]:
        """The ledger's, by state."""
        with closing(sqlite3.connect(self.service.home / "state" / LEDGER, timeout=120)) as db:
            return db.execute("SELECT state, count(*) FROM images GROUP BY 1").fetchall()

    def tell(self, images: int) -> Figures:
        worked = self.work(images, 3600)
        figures = Figures.of(self.service)
        say(f"{self.asked} asked for, {worked}: {figures}")
        return figures


@contextmanager
def life(
    home: Path,
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Generator[Life]:
    """A home in `home`, its worker not started yet.

    `environment`: more for the worker's. `clock`: the horde's.
    """
    (home / LIVES).mkdir(parents=True, exist_ok=True)
    be_good(home / LIVES)
    checkpoints = home / "models" / "compvis"
    checkpoints.mkdir(parents=True, exist_ok=True)
    header = completed(SD1, HEADERS["stable diffusion 1"])
    write_header(checkpoints / f"{MODEL}.safetensors", header, prefix="")
    command = [sys.executable, "-P", "-m", "tests.chaos.worker_process", str(home), "1", "1"]
    preloads = [f"{name}={value}" for name, value in (environment or {}).items()]
    command = ["env", *preloads, *command]
    draw = random.Random(7)
    with Sandbox({MODEL: ReferenceModel("stable diffusion 1")}, clock=clock, limits={}) as sandbox:
        (home / "bridgeData.yaml").write_text(
            f"horde_url: {sandbox.url}\napi_key: {WORKER_KEY}\ndreamer_name: {NAME}\n"
            f"models_to_load: ['{MODEL}']\n",
            "utf-8",
        )
        service = Service(command, home)
        customer = Customer(sandbox, draw, lambda: _order(draw))
        with closing(service), closing(customer):
            yield Life(sandbox, service, customer)


def _order(draw: random.Random) -> orders.Order:
    """One that can be made."""
    while True:
        order = orders.order(draw, (MODEL,))
        if IMPOSSIBLE not in order.prompt and order.params.get("seed") != UNREADABLE_SEED:
            return order


def say(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


# ---- the parts -------------------------------------------------------------------------------


def soak(home: Path, images: int) -> None:
    """Figures at the start and after each tenth; flat from the first tenth to the last."""
    with life(home) as it:
        it.service.start()
        told = [it.tell(images // 10) for _ in range(10)]
        it.service.stop()
        say("rows:", it.rows(), it.service.complaints())
    first, last = told[0], told[-1]
    assert last.memory_bytes - first.memory_bytes < MOST_GROWTH_BYTES
    assert last.threads <= first.threads
    assert last.files <= first.files + MOST_MORE_FILES
    assert last.log_bytes - first.log_bytes < images * LOG_BYTES_PER_IMAGE
    assert last.state_bytes - first.state_bytes < images * STATE_BYTES_PER_IMAGE


def clock(home: Path, images: int) -> None:
    """The wall clock jumps by days, while it serves and between two lives."""
    settable = SettableClock(home / "clock")
    with life(home, settable.environment) as it:
        it.service.start()
        say("before:", it.work(images), it.rows())
        for number, days in enumerate((3, -3, 10_000, 0), 1):
            settable.set_ahead(days * DAY_SECONDS)
            say(f"{days:+} days while it serves:", it.work(images), it.rows())
            wait_for(partial(_has_told, home / "output.log", number), every=1)
            say("noticed, and the ledger tended:", it.work(images), it.rows())
        for days in (3, -3, 0):
            it.sandbox.stop()  # what it has is left to the next life
            it.service.kill()
            settable.set_ahead(days * DAY_SECONDS)
            it.sandbox.start()
            it.service.start()
            say(f"{days:+} days between two lives:", it.work(images), it.rows())
        say(it.service.complaints(), Figures.of(it.service))
        it.service.stop()


def sleep(home: Path, seconds: int) -> None:
    """A laptop sleeps for so long in the midst of work: for the worker, and for the horde."""
    settable, slept = SettableClock(home / "clock"), MovableClock(0.0)
    with life(home, settable.environment, lambda: time.time() + slept.now) as it:
        it.service.start()
        say("before:", it.work(20))
        it.asked += 60
        it.customer.ask_for(it.asked)
        wait_for(lambda: it.sandbox.open_books().generations, every=0.001)
        settable.sleep(seconds)
        slept.move(seconds)
        say("slept:", it.open_images(), "open")
        say("awake:", it.work(20, 400), it.rows())
        say(it.service.complaints(), it.service.last_words())
        it.service.stop()


def writes(home: Path, every: int) -> None:
    """A disk that is full from the n-th write of a life on, and has room again for the next one.

    n is 1, and grows by `every` until a life has no so many writes.
    """
    disk = FullDisk(home / "disk", home / "owner")
    (home / "owner").mkdir()
    with life(home / "owner", disk.environment) as it:
        for number in itertools.count(1, every):
            disk.fill_at(number)
            it.service.start()
            ended = _ended_by_itself(it)
            last = disk.last
            disk.clear()
            it.service.start()
            say(f"full at {number} of {last}:", ended or "served", "and then:", it.work(6))
            it.service.stop()
            assert not it.service.complaints(), it.service.complaints()
            if last < number:
                return


def _ended_by_itself(it: Life) -> str:
    """Why a worker that has no room for its files did not even begin to serve; "" otherwise."""
    try:
        it.work(6)
        it.service.stop()
    except EndedByItself as ended:
        words = str(ended).splitlines()
        if words[0].endswith(f"exit code {ExitCode.DISK}"):
            return " ".join([words[0], *words[-1:]])
        raise
    return ""


def _has_told(log: Path, times: int) -> bool:
    return log.read_text("utf-8").count("clock was set") >= times


def links(home: Path, images: int) -> None:
    """Another account has put links to what is not its own into folders that all may write to."""
    home.chmod(0o755)
    victims = home / "victims"
    victims.mkdir(0o700)
    for folder, names in WRITTEN.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder).chmod(0o777)
        for name in (each + ending for each in names for ending in ("", ".new", ".part", ".1")):
            victim = victims / f"{folder.replace('/', '-')}-{name}"
            victim.write_text("precious")
            link = ["ln", "-s", str(victim), str(home / folder / name)]
            subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", *link], check=True)
    with life(home) as it:
        for _ in range(2):
            it.service.start()
            say(it.work(images))
            it.service.stop()
        changed = [file.name for file in victims.iterdir() if file.read_text() != "precious"]
        say("changed:", changed, it.service.complaints(), it.service.last_words())


def freeze(home: Path, seconds: int) -> None:
    """SIGSTOP of the worker and its children, in the midst of work, and SIGCONT."""
    with life(home) as it:
        it.service.start()
        say("before:", it.work(20))
        it.asked += 40
        it.customer.ask_for(it.asked)
        processes = [psutil.Process(it.service.pid), *it.service.children()]
        for process in processes:
            process.suspend()
        say("frozen:", it.open_images(), "open")
        time.sleep(seconds)
        for process in reversed(processes):
            process.resume()
        say("thawed:", it.work(20, 400), it.rows())
        same = {each.pid for each in processes} == {
            each.pid for each in [psutil.Process(it.service.pid), *it.service.children()]
        }
        say("the same processes:", same, it.service.complaints(), it.service.last_words())
        it.service.stop()


def disk(home: Path, images: int) -> None:
    """A home that is full to the byte, while it serves and at the start."""
    with small_disk(home, 40_000) as mounted:
        (mounted / LIVES).mkdir()
        with small_disk(mounted / LIVES, 100), life(mounted) as it:
            it.service.start()
            say("room:", it.work(images), it.rows())
            fill(mounted)
            say("full while it serves:", it.work(images))
            it.service.stop()
            it.service.start()
            say("full at the start:", it.work(images))
            (mounted / "filler").unlink()
            say("room again:", it.work(images))
            time.sleep(2)
            say(it.rows())
            it.service.stop()
            say(it.service.complaints(), it.service.last_words())


def read_only(home: Path, images: int) -> None:
    """A disk that the system makes read-only, while the worker serves and at its start."""
    with (
        tempfile.TemporaryDirectory() as elsewhere,
        failing_disk(home, Path(elsewhere, "disk.img")) as fail,
    ):
        (home / LIVES).mkdir()
        (home / "output.log").symlink_to(Path(elsewhere, "output.log"))
        with small_disk(home / LIVES, 100), life(home) as it:
            it.service.start()
            say("all well:", it.work(images), it.rows())
            fail()
            say("read-only while it serves:", it.work(images))
            it.service.stop()
            it.service.start()
            say("read-only at the start:", it.work(images))
            it.service.stop()
            say(it.service.complaints(), it.service.last_words())


PARTS: Mapping[str, Callable[[Path, int], None]] = {
    "soak": soak,
    "clock": clock,
    "links": links,
    "freeze": freeze,
    "disk": disk,
    "read_only": read_only,
    "sleep": sleep,
    "writes": writes,
}


def main(part: str, number: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        PARTS[part](Path(folder), int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])

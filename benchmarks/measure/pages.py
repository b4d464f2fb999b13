"""What open pages cost a whole worker that always has jobs: its page's processor time.

The page is a thread of the worker's process, so the system counts its time apart from that of all
other threads and of the engine and the judge. The horde and the browsers are processes of their
own, and count nowhere.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import psutil
import requests

from benchmarks.measure.horde import ServedHorde, served_horde
from benchmarks.measure.model_files import MODELS
from benchmarks.measure.workloads import WORKLOADS
from benchmarks.results.frame import Bench, positive
from hordelib.demo_model import ensure_checkpoint
from worker.children.signals import StopSignals
from worker.cli.serving import run_worker
from worker.config.config import load_config
from worker.config.document import CONFIG_FILE
from worker.demo.run import CLIENT_KEY, WORKER_KEY, Client
from worker.sandbox import ReferenceModel
from worker.service.logs import LogWay
from worker.service.orders import Order, Orders
from worker.service.state_folder import STATE

WARM_UP = 6  # images before the time that counts
MOST_A_SECOND = 4  # images of the demo's model: there are jobs to the end
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Row:
    pages: int  # that are open
    seconds: float
    images: int
    worker_cpu_seconds: float  # of the worker's process, the engine and the judge
    page_cpu_seconds: float  # of those, the page's

    @property
    def page_percent(self) -> float:
        """By which the pages make the worker's processor time grow."""
        return 100 * self.page_cpu_seconds / (self.worker_cpu_seconds - self.page_cpu_seconds)


def measure(pages: int, seconds: float, checkpoint: Path) -> Row:
    workload = WORKLOADS[0]
    reference = {name: ReferenceModel("stable diffusion 1") for name in workload.model_names}
    with tempfile.TemporaryDirectory() as folder, served_horde(reference) as horde:
        client = Client(horde.url(), CLIENT_KEY)
        for wish in workload.wishes(WARM_UP + int(seconds * MOST_A_SECOND)):
            client.post(wish)
        home = Path(folder)
        watching = _Watching(home, _page_address(), horde, pages, seconds)
        _lay_out(home, horde.url(), watching.url, workload.model_names, checkpoint)
        watching.start()
        config = load_config(home / CONFIG_FILE)
        run_worker(config, home, StopSignals.caught(), way=LogWay.plain)
        watching.join()
    if watching.row is None:
        raise RuntimeError("the worker ended before the pages were measured; its log is above")
    return watching.row


class _Watching(threading.Thread):
    """Opens the pages once the worker is warm, measures, and stops it."""

    def __init__(self, home: Path, url: str, horde: ServedHorde, pages: int, seconds: float):
        super().__init__(name="watching", daemon=True)
        self.url = url
        self.row: Row | None = None
        self._home, self._horde = home, horde
        self._pages, self._seconds = pages, seconds
        self._strangers = {child.pid for child in psutil.Process().children()}  # the horde's

    def run(self) -> None:
        while self._horde.wait_for(WARM_UP, LOOK_SECONDS) < WARM_UP:
            pass
        with _browsers(self.url, self._pages) as browsers:
            before = self._now(browsers)
            time.sleep(self._seconds)
            after = self._now(browsers)
        cpu, page_cpu, images, at = (new - old for new, old in zip(after, before, strict=True))
        self.row = Row(self._pages, at, int(images), cpu, page_cpu)
        Orders(self._home / STATE).give(Order.stop)

    def _now(self, browsers: int) -> tuple[float, float, float, float]:
        """Processor seconds of the worker and of its page, images, and the time."""
        own = psutil.Process()
        children = [
            child
            for child in own.children(recursive=True)
            if child.pid != browsers and child.pid not in self._strangers
        ]
        cpu = 0.0
        for process in (own, *children):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system
        (page,) = [each for each in threading.enumerate() if each.name == "page"]
        (times,) = [each for each in own.threads() if each.id == page.native_id]
        images = self._horde.wait_for(0, 0.0)
        return cpu, times.user_time + times.system_time, images, time.monotonic()


def _page_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def _lay_out(home: Path, horde: str, page: str, names: Sequence[str], checkpoint: Path) -> None:
    """A home folder in which each model is the demo's."""
    folder = home / "models" / "compvis"
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.safetensors").symlink_to(checkpoint)
    config = {
        "api_key": WORKER_KEY,
        "dreamer_name": "Benchmark",
        "horde_url": horde,
        "page": page,
        "models_to_load": list(names),
        "ram_to_leave_free": "256 MiB",
    }
    (home / CONFIG_FILE).write_text(json.dumps(config), "utf-8")  # JSON is YAML, too


@contextmanager
def _browsers(url: str, pages: int) -> Generator[int]:
    """So many pages are open and read their events; the id of the process that does."""
    context = get_context("spawn")
    are_open, over = context.Event(), context.Event()
    process = context.Process(target=_browse, args=(url, pages, are_open, over), daemon=True)
    process.start()
    try:
        are_open.wait()
        yield process.pid or 0
    finally:
        over.set()
        process.join()


def _browse(url: str, pages: int, are_open: Event, over: Event) -> None:
    streams = [requests.get(f"{url}/events", stream=True, timeout=60) for _ in range(pages)]
    for stream in streams:
        threading.Thread(target=_read, args=(stream,), daemon=True).start()
    are_open.set()
    over.wait()


def _read(stream: requests.Response) -> None:
    with suppress(requests.RequestException):
        for _ in stream.iter_lines():
            pass


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pages", type=positive, default=10, help="that are open (10)")
    parser.add_argument("--seconds", type=positive, help="that count (120; quick: 20)")


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    seconds = options.seconds or (20 if options.quick else 120)
    yield measure(options.pages, seconds, ensure_checkpoint(MODELS))


BENCH = Bench(
    name="pages",
    help="what open pages cost a whole worker at work: its page's processor time",
    add_arguments=_add_arguments,
    rows=_rows,
    count=lambda _options: 1,
    columns=(
        *("pages", "seconds", "images", "worker_cpu_seconds"),
        *("page_cpu_seconds", "page_percent"),
    ),
)

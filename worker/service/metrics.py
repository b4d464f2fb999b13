"""What monitoring asks of a running worker: /metrics (Prometheus), /healthz and /readyz.

It has an address, a key and a thread of its own, and its failure touches no job.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, StateSetMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hordelib.memory.cards import DriverError, FoundCard, opened_cards
from worker.config.keys import BridgeConfig
from worker.jobs.results import ENDS, JobStage
from worker.line.pausing import PauseCause
from worker.service.orders import ENDED, MAINTENANCE, SERVING, STARTING, WAITING, Orders
from worker.service.overview import Overview

log = logging.getLogger(__name__)

HUNG_SECONDS = 30.0  # without a sign of the main thread, until the process is not well
START_SECONDS = 10.0  # for the address to be bound
STATES = (WAITING, STARTING, SERVING, MAINTENANCE, "pausing", "paused", "draining", ENDED)

_CARD_GAUGES = {
    "temperature_celsius": "Of each graphics card.",
    "load_ratio": "Of each graphics card, from 0 to 1.",
    "power_watts": "What each graphics card takes.",
    "memory_bytes": "Of each graphics card.",
    "memory_free_bytes": "Of each graphics card, whatever program uses the rest.",
}

Latest = Callable[[], Overview | None]


class OverviewCollector(Collector):
    """The worker's latest overview in Prometheus' conventional names and units."""

    def __init__(self, latest: Latest):
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        now = self._latest() or Overview(doing=STARTING)
        states = {state.replace(" ", "_"): state == now.doing for state in STATES}
        yield StateSetMetricFamily("dreamer_state", "What the worker does.", value=states)
        images = CounterMetricFamily("dreamer_images", "Images that ended.", labels=["result"])
        images.add_metric(["submitted"], now.images)
        images.add_metric(["failed"], now.failed)
        yield images
        yield CounterMetricFamily("dreamer_kudos", "Kudos earned.", value=now.kudos)
        device = "Seconds that the device worked on jobs."
        yield CounterMetricFamily("dreamer_device_seconds", device, value=now.device_seconds)
        lost = "Answers of the horde that were lost on their way."
        yield CounterMetricFamily("dreamer_lost_pops", lost, value=now.lost_pops)
        yield from _of_other_kinds(now)
        yield from self._gauges(now)

    def _gauges(self, now: Overview) -> Iterator[Metric]:
        if now.began is not None:
            told = "When the worker began, since 1970 UTC."
            yield GaugeMetricFamily("dreamer_start_time_seconds", told, value=now.began)
        yield GaugeMetricFamily("dreamer_models", "Models offered.", value=len(now.models))
        at_stage = Counter(job.stage for job in now.jobs)
        jobs = GaugeMetricFamily("dreamer_jobs", "Jobs in hand.", labels=["stage"])
        for stage in JobStage:
            if stage not in ENDS:
                jobs.add_metric([stage.value], at_stage[stage.value])
        yield jobs
        causes = {each.cause for each in now.pauses if not each.device}
        told = "1 while this is a reason to ask for no jobs."
        pauses = GaugeMetricFamily("dreamer_pause", told, labels=["cause"])
        for cause in PauseCause:
            pauses.add_metric([cause.value], cause in causes)
        yield pauses
        yield from _of_cards(now)


def _of_cards(now: Overview) -> Iterator[Metric]:
    """Each with the number of the card; what its driver does not tell is left out."""
    told = "1 while the worker uses the card: it is not paused or out alone."
    used = GaugeMetricFamily("dreamer_card_used", told, labels=["card"])
    for device in now.devices:
        if device.number:
            used.add_metric([device.number], device.doing not in ("paused", "out"))
    yield used
    gauges = {
        name: GaugeMetricFamily(f"dreamer_card_{name}", told, labels=["card"])
        for name, told in _CARD_GAUGES.items()
    }
    with opened_cards() as cards:
        for each in cards:
            for name, value in _read(each).items():
                if value is not None:
                    gauges[name].add_metric([each.number], value)
    yield from gauges.values()


def _read(found: FoundCard) -> dict[str, float | None]:
    card, load = found.card, found.card.load_percent
    read: dict[str, float | None] = {
        "temperature_celsius": card.celsius,
        "load_ratio": None if load is None else load / 100,
        "power_watts": card.watts,
    }
    with suppress(DriverError):
        total_bytes, free_bytes = card.memory
        read |= {"memory_bytes": total_bytes, "memory_free_bytes": free_bytes}
    return read


def _of_other_kinds(now: Overview) -> Iterator[Metric]:
    told = "Forms and texts that ended."
    tasks = CounterMetricFamily("dreamer_tasks", told, labels=["kind", "result"])
    kudos = CounterMetricFamily("dreamer_task_kudos", "Kudos earned by them.", labels=["kind"])
    for other in now.others:
        tasks.add_metric([other.kind, "submitted"], other.done)
        tasks.add_metric([other.kind, "failed"], other.failed)
        kudos.add_metric([other.kind], other.kudos)
    yield from (tasks, kudos)


class MetricsServer:
    """Serves what monitoring asks, where there is an address; `beat` is for the main thread.

    Until its first beat the worker starts, which takes as long as its models take to be read or
    downloaded: it is well then.

    Args:
        address: host and port; "" serves nothing.
        key: that a client has to show as a bearer token; "" asks for none.
    """

    def __init__(self, address: str, key: str, latest: Latest):
        self.address = address
        self._key = key
        self._latest = latest
        self._registry = CollectorRegistry()
        self._registry.register(OverviewCollector(latest))
        self._beaten_at: float | None = None

    def beat(self) -> None:
        self._beaten_at = time.monotonic()

    @contextmanager
    def served(self) -> Generator[None]:
        """While this lasts. An address that can't be had is logged, and nothing else happens."""
        if not self.address:
            yield
            return
        loop, is_bound = asyncio.new_event_loop(), threading.Event()
        over = asyncio.Event()
        thread = threading.Thread(
            target=self._run, args=(loop, is_bound, over), name="metrics", daemon=True
        )
        thread.start()
        is_bound.wait(START_SECONDS)
        try:
            yield
        finally:
            if thread.is_alive():
                loop.call_soon_threadsafe(over.set)
                thread.join(START_SECONDS)

    def _run(
        self, loop: asyncio.AbstractEventLoop, is_bound: threading.Event, over: asyncio.Event
    ) -> None:
        try:
            loop.run_until_complete(self._serve(is_bound, over))
        except OSError as error:
            told = "metrics: %s can't be listened at (%s); choose another address or port"
            log.warning(told, self.address, error.strerror or error)
        except Exception:
            log.exception("a bug of ours ended /metrics; jobs go on")
        finally:
            is_bound.set()
            loop.close()

    async def _serve(self, is_bound: threading.Event, over: asyncio.Event) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        host, _, port = self.address.rpartition(":")
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
            self.address = f"{host}:{runner.addresses[0][1]}"
            log.info("metrics at http://%s/metrics", self.address)
            is_bound.set()
            await over.wait()
        finally:
            await runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._may_enter(request):
            return self._told(401, "give metrics_key as a bearer token")
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _healthz(self, request: web.Request) -> web.Response:
        if self._beaten_at is None:
            return self._told(200, STARTING)
        is_well = time.monotonic() - self._beaten_at < HUNG_SECONDS
        return self._told(200, "well") if is_well else self._told(503, "the main thread hangs")

    async def _readyz(self, request: web.Request) -> web.Response:
        now = self._latest()
        doing = now.doing if now else STARTING
        return self._told(200 if doing == SERVING else 503, doing)

    def _may_enter(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        wanted = f"Bearer {self._key}"
        return not self._key or hmac.compare_digest(given.encode(), wanted.encode())

    def _told(self, status: int, text: str) -> web.Response:
        return web.Response(status=status, text=f"{text}\n")


def make_metrics(config: BridgeConfig, orders: Orders) -> MetricsServer:
    key = config.metrics_key.get_secret_value() if config.metrics_key else ""
    return MetricsServer(config.metrics or "", key, orders.answered)

"""What monitoring reads of a worker, over real HTTP and by prometheus-client's own parser."""

from __future__ import annotations

import json
import logging
import socket

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.owner import PROJECT
from tests.support.simulated_nvml import MIB, SimulatedCard, SimulatedNvml
from tests.support.simulated_sensors import SimulatedSensors
from worker.line.devices.device_state import DeviceState
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.service.metrics import MetricsServer
from worker.service.overview import JobOverview, Overview

NOW = Overview(
    doing="serving",
    began=1_700_000_000.0,
    models=("Deliberate", "Flux"),
    jobs=(JobOverview(id="an-id", model="Deliberate", stage="running", images=1),),
    pauses=(PauseReason(PauseCause.pause_for, "a game runs", PauseKind.at_once),),
    images=7,
    failed=2,
    kudos=31.5,
    device_seconds=60.5,
)


def get(server: MetricsServer, path: str, key: str = "") -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.get(f"http://{server.address}{path}", headers=headers, timeout=120)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By name and the values of labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_the_overview():
    server = MetricsServer("127.0.0.1:0", "", lambda: NOW)
    with server.served():
        answer = get(server, "/metrics")
    found = samples(answer.text)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert {
        ("dreamer_state", "serving"): 1, ("dreamer_state", "paused"): 0,
        ("dreamer_images_total", "submitted"): 7, ("dreamer_images_total", "failed"): 2,
        ("dreamer_kudos_total",): 31.5, ("dreamer_device_seconds_total",): 60.5,
        ("dreamer_jobs", "running"): 1, ("dreamer_jobs", "waiting"): 0,
        ("dreamer_pause", "pause_for"): 1, ("dreamer_pause", "owner"): 0,
        ("dreamer_models",): 2, ("dreamer_start_time_seconds",): 1_700_000_000.0,
    }.items() <= found.items()  # fmt: skip
    assert "an-id" not in answer.text
    assert "Deliberate" not in answer.text, "a label without a bound"


def test_each_card_has_figures_of_its_own(monkeypatch: pytest.MonkeyPatch):
    cards = [
        SimulatedCard("a card", f"GPU-{n}", celsius=50 + n, load_percent=10 * n) for n in (0, 1)
    ]
    SimulatedNvml(cards).install(monkeypatch)
    devices = (
        DeviceState("left", "0", "GPU-0", "working"),
        DeviceState("right", "1", "GPU-1", "out", why="the card has fallen off the bus"),
    )
    server = MetricsServer("127.0.0.1:0", "", lambda: NOW.beside((), devices))
    with server.served():
        found = samples(get(server, "/metrics").text)
    assert {
        ("dreamer_card_used", "0"): 1, ("dreamer_card_used", "1"): 0,
        ("dreamer_card_temperature_celsius", "1"): 51, ("dreamer_card_load_ratio", "1"): 0.1,
        ("dreamer_card_power_watts", "0"): 150, ("dreamer_card_memory_bytes", "0"): 8192 * MIB,
        ("dreamer_card_memory_free_bytes", "1"): 6000 * MIB,
    }.items() <= found.items()  # fmt: skip


def test_each_metric_of_the_dashboard_is_there(monkeypatch: pytest.MonkeyPatch):
    SimulatedSensors().install(monkeypatch)
    board = json.loads((PROJECT / "docs" / "grafana.json").read_text("utf-8"))
    server = MetricsServer("127.0.0.1:0", "", lambda: NOW)
    with server.served():
        names = {name for name, *_ in samples(get(server, "/metrics").text)}
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert queries
    for query in queries:
        assert any(name in query for name in names), query


@pytest.mark.parametrize(
    ("doing", "status"), [("serving", 200), ("paused", 503), ("starting", 503), ("", 503)]
)
def test_it_is_ready_while_it_asks_for_jobs(doing: str, status: int):
    server = MetricsServer("127.0.0.1:0", "", lambda: Overview(doing=doing) if doing else None)
    with server.served():
        assert get(server, "/readyz").status_code == status
        assert get(server, "/healthz").status_code == 200


def test_a_main_thread_that_hangs_is_not_well(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.service.metrics.HUNG_SECONDS", 0)
    server = MetricsServer("127.0.0.1:0", "", lambda: NOW)
    with server.served():
        assert get(server, "/healthz").status_code == 200, "it may start for hours"
        server.beat()
        assert get(server, "/healthz").status_code == 503


def test_metrics_are_for_those_with_the_key():
    server = MetricsServer("127.0.0.1:0", "a-key", lambda: NOW)
    with server.served():
        assert get(server, "/metrics").status_code == 401
        assert get(server, "/metrics", "another").status_code == 401
        assert get(server, "/metrics", "a-key").status_code == 200
        assert get(server, "/healthz").status_code == 200


def test_an_address_that_is_taken_is_told_and_nothing_else(caplog: pytest.LogCaptureFixture):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            caplog.at_level(logging.WARNING),
            MetricsServer(f"127.0.0.1:{port}", "", lambda: NOW).served(),
        ):
            pass
    assert f"metrics: 127.0.0.1:{port} can't be listened at" in caplog.text
    assert len(caplog.records) == 1

"""The page fails whole under load, and no job notices."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.open_page import free_port, open_page
from tests.support.owner import Home, assert_nothing_left, config, wait_for
from tests.support.reference_server import reference_server
from tests.support.sandbox_client import CLIENT_KEY, MODEL, Api
from tests.support.worker_with_a_page import start
from worker.page.server import page_of
from worker.sandbox import Sandbox, State
from worker.service.orders import WAITING, Orders
from worker.service.state_folder import STATE

SMALL = {"width": 64, "height": 64, "steps": 4}


@pytest.mark.parametrize("how", ["loop", "thread"])
def test_a_page_whose_thread_or_loop_ends_touches_no_job(home: Home, horde: Sandbox, how: str):
    url = f"http://127.0.0.1:{free_port()}"
    home.write(config(horde).replace("page: ''", f"page: {url}"))
    process = start(home.folder, how)
    with Api(horde.url, CLIENT_KEY) as client, process as worker:
        asked = [client.ask_id(SMALL) for _ in range(6)]
        wait_for(lambda: bool(horde.books().generations))
        with requests.get(f"{url}/events", stream=True, timeout=120) as events:
            lines = events.iter_lines()
            assert next(lines) == b"event: now"
            (home.folder / "fail").touch()
            with suppress(requests.RequestException):
                list(lines)
        with pytest.raises(requests.RequestException):
            requests.get(url, timeout=120)
        asked += [client.ask_id(SMALL) for _ in range(6)]
        wait_for(lambda: all(horde.books().request(id).done for id in asked))
        worker.terminate()
        output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, output
    assert "the page has ended" in output
    assert {image.state for id in asked for image in horde.books().of_request(id)} == {State.ok}
    assert_nothing_left(worker.pid)


def test_a_busy_port_is_a_warning_with_the_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with open_page(tmp_path) as first, page_of(first.watched) as second:
        told = f"no page at {first.url} (Address already in use): set"
        assert told in caplog.text
        assert second.thread is None
        assert first.get("/").status_code == 200


def test_page_and_health_are_there_before_the_first_model_is(tmp_path: Path, horde: Sandbox):
    url, metrics = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    headers = {"Origin": url}

    def now() -> Any:
        with requests.get(f"{url}/events", stream=True, timeout=120) as events:
            lines = events.iter_lines(decode_unicode=True)
            return json.loads(next(line for line in lines if line.startswith("data: "))[6:])

    def is_open() -> bool:
        with suppress(requests.RequestException):
            return bool(now()["downloads"])
        return False

    with reference_server() as site:
        site.offer_model(MODEL)
        site.hold(f"/files/{MODEL.replace(' ', '_')}.safetensors")
        more = f"model_reference: {site.url}/reference\nmetrics: '{metrics[7:]}'\n"
        text = config(horde, more=more)
        Home(tmp_path).write(text.replace("page: ''", f"page: {url}"))
        with start(tmp_path, "loop") as worker:
            wait_for(lambda: is_open() or worker.poll() is not None)
            seen = now()
            assert seen["sentence"].startswith("It is starting. Models are read or downloaded")
            assert [each["name"] for each in seen["downloads"]] == [MODEL]
            health, ready = (
                requests.get(metrics + it, timeout=120) for it in ("/healthz", "/readyz")
            )
            assert (health.status_code, health.text) == (200, "starting\n")
            assert (ready.status_code, ready.text) == (503, "starting\n")
            paths = {"/api/models/pause": {"name": MODEL}, "/api/order": {"order": "stop"}}
            for path, body in paths.items():
                assert requests.post(url + path, json=body, headers=headers, timeout=120).ok
            orders = Orders(tmp_path / STATE)
            wait_for(lambda: (told := orders.answered()) is not None and told.doing == WAITING)
            worker.terminate()
            output, _ = worker.communicate(timeout=120)
    assert worker.returncode == 0, output

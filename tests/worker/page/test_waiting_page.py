"""A worker that nothing may be served with yet: its page offers what is missing, and it waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect

from tests.support.browser import chromium, looking
from tests.support.open_page import free_port
from tests.support.owner import PROJECT, wait_for
from tests.support.safety_stand_in import install, put_weights
from worker.children.signals import StopSignals
from worker.config.config import load_config
from worker.page.waiting_page import Ended, wait_for_safety
from worker.service.orders import WAITING, Order, Orders

CHECKS = (PROJECT / "tests" / "support" / "readable.js").read_text("utf-8")


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the page of a worker that needs horde_safety, which the set-up of its clone fails at."""
    script = tmp_path / "update-runtime.sh"
    script.write_text("#!/bin/sh\necho no network; exit 4\n", "utf-8")
    script.chmod(0o755)
    monkeypatch.setattr("worker.page.extras.PROJECT", tmp_path)
    monkeypatch.setattr("worker.page.extras.has_safety_packages", lambda: False)
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "bridgeData.yaml").write_text(
        "api_key: a-key-of-somebody\ndreamer_name: tester\nmodels_to_load: [Deliberate]\n"
        f"safety: required\npage: {url}\n",
        "utf-8",
    )
    return url


def is_waiting(orders: Orders) -> bool:
    told = orders.answered()
    return told is not None and told.doing == WAITING


def test_it_offers_the_checker_and_goes_on_once_that_has_come(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    config = load_config(tmp_path / "bridgeData.yaml")
    orders = Orders(tmp_path / "state")
    with closing(StopSignals()) as signals, ThreadPoolExecutor() as pool, chromium() as browser:
        worker = pool.submit(wait_for_safety, config, tmp_path, signals)
        wait_for(lambda: worker.done() or is_waiting(orders))
        try:
            with looking(browser, url, viewport={"width": 360, "height": 800}) as tab:
                expect(tab.locator("#extras")).to_contain_text("horde_safety is not installed")
                expect(tab.get_by_role("button", name="Start again")).to_be_hidden()
                assert tab.evaluate(CHECKS) == []
                tab.get_by_role("button", name="Install horde_safety").click()
                expect(tab.locator("#extras")).to_contain_text("no network (exit code 4)")
                assert not worker.done()
                put_weights(config.models_folder(tmp_path), monkeypatch)
                install(monkeypatch)
                wait_for(worker.done)
        finally:
            signals.came()
    assert worker.result() is Ended.go_on


def test_an_order_to_end_ends_the_wait_in_which_it_is_well(tmp_path: Path, url: str):
    file, watched = tmp_path / "bridgeData.yaml", f"127.0.0.1:{free_port()}"
    file.write_text(f"{file.read_text('utf-8')}metrics: '{watched}'\n", "utf-8")
    config = load_config(tmp_path / "bridgeData.yaml")
    orders = Orders(tmp_path / "state")
    with closing(StopSignals()) as signals, ThreadPoolExecutor() as pool:
        worker = pool.submit(wait_for_safety, config, tmp_path, signals)
        wait_for(lambda: worker.done() or is_waiting(orders))
        asked = [requests.get(f"http://{watched}/{it}z", timeout=60) for it in ("health", "ready")]
        orders.give(Order.drain)
        assert worker.result() is Ended.by_owner
    assert [answer.status_code for answer in asked] == [200, 503]

"""A worker without a configuration: its owner fills in a form, and it starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import expect

from tests.support.browser import chromium
from tests.support.open_page import PASSWORD, free_port
from tests.support.owner import PROJECT, wait_for
from tests.support.reference_server import ReferenceServer, reference_server
from tests.support.sandbox_client import MODELS, WORKER_KEY
from worker.config.config import load_config
from worker.page.access import hashed
from worker.page.first_page import set_up_by_page
from worker.sandbox import Sandbox

LONG_MS = 120_000
CHECKS = (PROJECT / "tests" / "support" / "readable.js").read_text("utf-8")
ANSWERS = {
    "api_key": WORKER_KEY,
    "dreamer_name": "tester",
    "purpose": "shared",
    "nsfw": False,
    "models": ["Deliberate"],
}


@pytest.fixture(scope="module")
def horde() -> Generator[Sandbox]:
    with Sandbox(MODELS, limits={}) as horde:
        yield horde


@pytest.fixture(scope="module")
def site() -> Generator[ReferenceServer]:
    with reference_server() as site:
        site.offer_model("Deliberate", size_on_disk_bytes=2_134_000_000)
        site.offer_model("Small")
        site.hold("/files/Small.safetensors")  # so that no engine has to start
        site.offer_model("Vast", baseline="flux_1", size_on_disk_bytes=10**15)
        yield site


@pytest.fixture
def url(horde: Sandbox, site: ReferenceServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the page will be; the environment says where all else is."""
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("DREAMER_PAGE", url)
    monkeypatch.setenv("DREAMER_HORDE_URL", horde.url)
    monkeypatch.setenv("DREAMER_MODEL_REFERENCE", f"{site.url}/reference")
    return url


class Form:
    """The form's server in a thread, and what is asked of it."""

    def __init__(self, home: Path, url: str):
        self.config_file, self.url = home / "bridgeData.yaml", url
        self.thread = threading.Thread(target=set_up_by_page, args=(self.config_file, home))
        self.thread.start()
        wait_for(self._is_open)

    def _is_open(self) -> bool:
        try:
            return self.get("/").status_code < 500
        except requests.ConnectionError:
            return False

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=120, allow_redirects=False)

    def post(self, body: Any, **headers: str) -> requests.Response:
        headers = {"Origin": self.url, **headers}
        return requests.post(f"{self.url}/api/setup", json=body, headers=headers, timeout=120)

    def finish(self) -> None:
        """Have it end, as a worker's page ends it: by answers that can be used."""
        if self.thread.is_alive():
            self.post(ANSWERS)
        self.thread.join()


@pytest.fixture
def form(tmp_path: Path, url: str) -> Generator[Form]:
    form = Form(tmp_path, url)
    yield form
    form.finish()


def test_wrong_answers_are_told_and_nothing_is_written(form: Form):
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"api_key": "wrong-key-wrong-key-00"}, "put the key of your account"),
        ({"api_key": "your-api-key"}, "still the template's"),
        ({"dreamer_name": "my colab"}, "dreamer_name: 'my colab'; expected"),
        ({"models": []}, "choose one"),
        ({"models": ["Delibrate"]}, "did you mean 'Deliberate'?"),
        ({"purpose": "mining"}, "purpose: expected one of horde, shared, nights"),
        ({"horde_url": "http://127.0.0.1:9"}, "expected texts"),
    ]
    for changes, told in wrong:
        answer = form.post({**ANSWERS, **changes})
        assert answer.status_code == 400, changes
        assert told in "\n".join(answer.json()["problems"])
        assert not form.config_file.exists()
    assert form.post(ANSWERS).json() == {"notes": []}
    form.thread.join()
    config = load_config(form.config_file)
    assert config.models_to_load == ("Deliberate",)
    assert (config.dreamer_name, config.nsfw, config.on_battery) == ("tester", False, True)
    assert "horde_url" not in form.config_file.read_text("utf-8")
    assert form.config_file.stat().st_mode & 0o077 == 0


def test_nobody_else_fills_it_in(form: Form):
    assert form.get("/", Host="evil.example").status_code == 403
    assert form.get("/", **{"X-Forwarded-For": "192.0.2.1"}).status_code == 403
    assert form.post(ANSWERS, Origin="http://evil.example").status_code == 403
    assert "default-src 'none'" in form.get("/").headers["Content-Security-Policy"]
    assert not form.config_file.exists()


def test_with_a_password_it_is_asked_for_first(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DREAMER_PAGE_PASSWORD", hashed(PASSWORD))
    form = Form(tmp_path, url)
    assert form.get("/").headers["Location"] == "/login"
    assert form.get("/api/setup").status_code == 401
    with requests.Session() as browser:
        origin = {"Origin": url}
        login = browser.post(f"{url}/login", json={"password": PASSWORD}, headers=origin)
        assert login.status_code == 200
        assert browser.post(f"{url}/api/setup", json=ANSWERS, headers=origin).status_code == 200
    form.thread.join()


def test_an_unreachable_horde_is_said_and_no_hindrance(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DREAMER_HORDE_URL", "http://127.0.0.1:9")
    form = Form(tmp_path, url)
    (note,) = form.post(ANSWERS).json()["notes"]
    assert "key and name were not checked" in note
    form.thread.join()
    assert form.config_file.exists()


def test_an_owner_sets_a_worker_up_in_a_browser_and_it_starts(tmp_path: Path, url: str):
    command = [sys.executable, "-m", "worker", "--home", str(tmp_path), "run", "--plain"]
    log = tmp_path / "output"
    with (
        log.open("wb") as output,
        chromium() as browser,
        subprocess.Popen(command, cwd=PROJECT, stdout=output, stderr=output) as worker,
    ):
        try:
            wait_for(lambda: f"Open {url}" in log.read_text("utf-8"))
            tab = browser.new_page(viewport={"width": 360, "height": 800})
            tab.set_default_timeout(LONG_MS)
            tab.goto(url)
            expect(tab.get_by_role("button", name="Save and start")).to_be_enabled(timeout=LONG_MS)
            expect(tab.get_by_label("Deliberate", exact=True)).to_be_checked()
            expect(tab.locator("#models-rows")).to_contain_text("7 kudos")
            expect(tab.locator("#total")).to_contain_text("2.1 GB to download")
            expect(tab.locator("#unfit-rows")).to_contain_text("Vast")
            assert tab.evaluate(CHECKS) == []
            tab.get_by_label("API key").fill("wrong-key-wrong-key-00")
            tab.get_by_label("Name of this worker").fill("tester")
            tab.get_by_role("radio").nth(2).check()
            tab.get_by_label("Deliberate", exact=True).uncheck()
            tab.get_by_label("Others").fill("Small")
            tab.get_by_label("Small", exact=True).uncheck()
            tab.get_by_role("button", name="Save and start").click()
            expect(tab.get_by_role("alert")).to_contain_text("No user has this API key")
            tab.get_by_label("API key").fill(WORKER_KEY)
            tab.get_by_role("button", name="Save and start").click()
            expect(tab.locator("#worker")).to_have_text("tester", timeout=LONG_MS)
            expect(tab.locator("#sentence")).to_contain_text("It is starting", timeout=LONG_MS)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
    config = load_config(tmp_path / "bridgeData.yaml")
    assert (config.models_to_load, len(config.serve_hours)) == (("Small",), 1)


def test_what_nothing_is_served_without_is_installed_first(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DREAMER_SAFETY", "required")
    monkeypatch.setattr("worker.page.extras.PROJECT", tmp_path)
    monkeypatch.setattr("worker.page.extras.has_safety_packages", lambda: False)
    set_up = tmp_path / "update-runtime.sh"
    set_up.touch()
    form = Form(tmp_path, url)
    answer = form.post(ANSWERS)
    assert answer.status_code == 400
    assert "horde_safety is needed, and not installed yet" in answer.text
    assert not form.config_file.exists()
    set_up.unlink()  # where the page can't install it, its command is told, and no answer is lost
    (extra,) = form.get("/api/setup/extras").json()["extras"]
    assert extra["by_hand"]
    assert form.post(ANSWERS).status_code == 200
    form.thread.join()

"""Things on the page, clicked in a real Chromium against one running worker and a local horde."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.axe import serious_problems
from tests.support.browser import LONG_MS, chromium, go_to, looking
from tests.support.family_files import sd1_header
from tests.support.open_page import PASSWORD, free_port
from tests.support.owner import PROJECT, config, wait_for
from tests.support.reference_server import ReferenceServer, reference_server
from tests.support.sandbox_client import CLIENT_KEY, MODEL, MODELS, Api
from tests.support.worker_with_a_page import start
from worker.config.config import load_config
from worker.config.hours import DAYS
from worker.loras.files import LoraRecord
from worker.sandbox import Sandbox
from worker.service.assembly import make_adapters

ADDED = "Demo Inpainting"  # a model of the local horde that the worker does not have
LORA = "a LoRA of an earlier life"
FAST = {"width": 64, "height": 64, "steps": 4}
SLOW = {"width": 192, "height": 64, "steps": 40}  # of the scripted engine: two seconds


@dataclass
class WholeWorker:
    url: str
    horde: Sandbox
    site: ReferenceServer
    config_file: Path
    client: Api

    def ask(self, params: dict[str, int], count: int = 1) -> list[str]:
        return [self.client.ask_id(params) for _ in range(count)]

    def wait_for_all(self, asked: list[str]) -> None:
        wait_for(lambda: all(self.horde.books().request(id).done for id in asked))

    def offered(self) -> set[str]:
        """The models that the horde hands out jobs of to this worker."""
        return {row["name"] for row in self.client.call("GET", "status/models?type=image").json()}


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as browser:
        yield browser


def put_lora(home: Path) -> None:
    """As an earlier life has downloaded it."""
    given = load_config(home / "bridgeData.yaml")
    adapters = make_adapters(given, given.models_folder(home))
    about = LoraRecord(name=LORA, model_id=1, version_id=2, size_bytes=9)
    with adapters.loras.arrival("1-2", about, "a-job") as path:
        path.write_bytes(b"some file")


@pytest.fixture(scope="module")
def worker(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, checkpoint: Path
) -> Generator[WholeWorker]:
    """In a process of its own, with a scripted engine; its page drains it in the end."""
    home = tmp_path_factory.mktemp("a whole worker")
    (home / "models" / "compvis").mkdir(parents=True)
    (home / "models" / "compvis" / checkpoint.name).symlink_to(checkpoint)
    url = f"http://127.0.0.1:{free_port()}"
    with Sandbox(MODELS, limits={}) as horde, reference_server() as site:
        site.offer_model(ADDED, sd1_header(home / "header", 1), inpainting=True)
        more = f"model_reference: {site.url}/reference\nshow_pictures: true  # mine\n"
        text = config(horde, more=more).replace("page: ''", f"page: {url}")
        (home / "bridgeData.yaml").write_text(text, "utf-8")
        put_lora(home)
        with (
            Api(horde.url, CLIENT_KEY) as client,
            start(home, "loop", subprocess.DEVNULL) as running,
        ):
            wait_for(lambda: running.poll() is not None or _answers(url))
            whole = WholeWorker(url, horde, site, home / "bridgeData.yaml", client)
            whole.wait_for_all(whole.ask(FAST))
            yield whole
            asked = whole.ask(SLOW)
            with looking(browser, url) as tab:
                expect(job_of(tab)).to_contain_text("step", timeout=LONG_MS)
                tab.get_by_role("button", name="Drain").click()
                tab.get_by_role("dialog").get_by_role("button", name="Drain").click()
                expect(tab.get_by_role("heading", name="The worker has ended")).to_be_visible()
            whole.wait_for_all(asked)
            running.terminate()
            assert running.wait(120) == 0


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=120).ok
    except requests.RequestException:
        return False


@contextmanager
def shown(browser: Browser, worker: WholeWorker, view: str = "Now") -> Generator[Page]:
    with looking(browser, worker.url) as tab:
        go_to(tab, view)
        yield tab


def job_of(tab: Page) -> Locator:
    return tab.locator("#job")


def test_a_job_is_watched_paused_and_resumed(browser: Browser, worker: WholeWorker):
    with shown(browser, worker) as tab:
        asked = worker.ask(SLOW, 3)
        expect(job_of(tab)).to_contain_text(f"{MODEL}192", timeout=LONG_MS)
        expect(job_of(tab)).to_contain_text("of 40", timeout=LONG_MS)
        tab.get_by_role("button", name="Pause", exact=True).click()
        expect(tab.locator("#sentence")).to_contain_text("It is paused.", timeout=LONG_MS)
        expect(job_of(tab)).to_have_text("None.", timeout=LONG_MS)
        tab.get_by_role("button", name="Resume").click()
        expect(tab.locator("#sentence")).not_to_contain_text("paused", timeout=LONG_MS)
        worker.wait_for_all(asked)
        images = tab.locator("#pictures img")
        expect(images.nth(2)).to_be_visible(timeout=LONG_MS)
        assert images.first.evaluate("(image) => image.decode().then(() => image.naturalWidth)")


def test_two_browsers_order_different_things_and_the_last_one_counts(
    browser: Browser, worker: WholeWorker
):
    with shown(browser, worker) as first, shown(browser, worker) as second:
        for _ in range(3):
            first.get_by_role("button", name="Pause", exact=True).click()
            expect(second.locator("#sentence")).to_contain_text("paused", timeout=LONG_MS)
            second.get_by_role("button", name="Resume").click()
            expect(first.locator("#sentence")).not_to_contain_text("pause", timeout=LONG_MS)
        for tab in (first, second):
            go_to(tab, "Settings")
            expect(tab.get_by_label("queue_size", exact=True)).to_be_visible()
        for tab, key, told in (
            (first, "queue_size", "queue_size: counts after a restart"),
            (second, "max_batch", "has changed meanwhile"),
        ):
            tab.get_by_label(key, exact=True).fill("2")
            tab.get_by_role("button", name="Save").click()
            expect(tab.locator("#saved")).to_contain_text(told)
    kept = load_config(worker.config_file)
    assert (kept.queue_size, kept.max_batch) == (2, 4)
    assert "show_pictures: true  # mine" in worker.config_file.read_text("utf-8")
    worker.wait_for_all(worker.ask(FAST))


def set_to(tab: Page, key: str, *values: str) -> None:
    """Save a list of these."""
    tab.get_by_label(key, exact=True).fill("\n".join(values))
    tab.get_by_role("button", name="Save").click()
    expect(tab.locator("#saved")).to_contain_text(f"{key}: counts")


def test_settings_are_taken_over_at_once_by_a_worker_that_runs(
    browser: Browser, worker: WholeWorker
):
    closed = DAYS[(datetime.now().weekday() + 3) % 7]
    with shown(browser, worker, "Settings") as tab:
        state = tab.locator("#sentence")
        set_to(tab, "serve_hours", closed)
        expect(state).to_contain_text("outside of serve_hours", timeout=LONG_MS)
        set_to(tab, "serve_hours")
        expect(state).not_to_contain_text("serve_hours", timeout=LONG_MS)
        set_to(tab, "pause_for", "python*")
        expect(state).to_contain_text("which pause_for names", timeout=LONG_MS)
        set_to(tab, "pause_for")
        expect(state).not_to_contain_text("pause_for", timeout=LONG_MS)
        set_to(tab, "blacklist", "circle")  # every other request has it in its prompt
        asked: list[str] = []

        def is_passed_over() -> bool:
            """A pop that was on its way before may still take one."""
            asked.extend(worker.ask(FAST))
            worker.wait_for_all([worker.client.ask_id(FAST, prompt="a cat")])
            return not worker.horde.books().request(asked[-1]).done

        wait_for(is_passed_over)
        set_to(tab, "blacklist")
        worker.wait_for_all(asked)
        tab.get_by_label("show_pictures", exact=True).uncheck()
        tab.get_by_role("button", name="Save").click()
        expect(tab.locator("#pictures")).to_have_attribute("hidden", "", timeout=LONG_MS)
        tab.get_by_label("show_pictures", exact=True).check()
        tab.get_by_role("button", name="Save").click()
        expect(tab.locator("#pictures")).not_to_have_attribute("hidden", "", timeout=LONG_MS)


def test_what_needs_a_restart_counts_after_the_button_for_it(browser: Browser, worker: WholeWorker):
    with shown(browser, worker, "Settings") as tab:
        tab.get_by_label("stop_timeout", exact=True).fill("77")
        tab.get_by_role("button", name="Save").click()
        expect(tab.locator("#waiting")).to_contain_text("stop_timeout", timeout=LONG_MS)
        asked = worker.ask(SLOW)
        tab.get_by_role("button", name="Restart now").click()
        tab.get_by_role("dialog").get_by_role("button", name="Restart").click()
        expect(tab.locator("#waiting")).to_be_empty(timeout=LONG_MS)
        expect(tab.locator("#state")).to_have_class("state good", timeout=LONG_MS)
        worker.wait_for_all(asked)
    home = str(worker.config_file.parent)
    command = [sys.executable, "-m", "worker", "--home", home, "restart"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert told.stdout.startswith("the worker is ")
    assert told.stdout.endswith(", then it begins anew\n")
    worker.wait_for_all(worker.ask(FAST))


def test_a_pause_of_an_hour_says_until_when_and_the_log_tells_of_it(
    browser: Browser, worker: WholeWorker
):
    with shown(browser, worker) as tab:
        state = tab.locator("#sentence")
        for choice, told in (("for an hour", r"You paused it until \d\d:\d\d"),
                             ("until tomorrow", r"You paused it until \w{3} 00:00")):  # fmt: skip
            tab.get_by_label("How long to pause").select_option(choice)
            tab.get_by_role("button", name="Pause", exact=True).click()
            expect(state).to_contain_text(re.compile(told), timeout=LONG_MS)
        tab.get_by_role("button", name="Resume").click()
        expect(state).not_to_contain_text("paused", timeout=LONG_MS)
        go_to(tab, "Log")
        tab.get_by_role("searchbox", name="Search").fill("order is to")
        expect(tab.locator("#lines li").last).to_contain_text("the order is to serve")
        tab.get_by_label("Level").select_option("errors")
        expect(tab.locator("#lines li")).to_have_count(0)
        tab.get_by_label("Level").select_option("all")
        tab.get_by_role("button", name="Copy").click()
        expect(tab.locator("#copied")).to_contain_text("lines are copied")


def test_a_download_is_paused_and_cancelled_while_jobs_are_served(
    browser: Browser, worker: WholeWorker
):
    rest = worker.site.hold(f"/files/{ADDED.replace(' ', '_')}.safetensors")
    with shown(browser, worker, "Models") as tab:
        tab.get_by_role("button", name=f"Add {ADDED}").click()
        tab.get_by_role("dialog").get_by_role("button", name="Download").click()
        tab.get_by_role("button", name=f"Pause the download of {ADDED}").click()
        rest.set()
        downloads = tab.locator("#downloads")
        expect(downloads).to_contain_text(f"{ADDED}: paused at", timeout=LONG_MS)
        worker.wait_for_all(worker.ask(FAST))
        tab.get_by_role("button", name=f"Cancel the download of {ADDED}").click()
        tab.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
        expect(downloads).to_contain_text("its download was cancelled", timeout=LONG_MS)
    assert ADDED not in load_config(worker.config_file).models_to_load


def test_behind_a_password_a_worker_is_entered_left_stopped_and_started_again(
    browser: Browser, worker: WholeWorker, tmp_path: Path, checkpoint: Path
):
    (tmp_path / "models" / "compvis").mkdir(parents=True)
    (tmp_path / "models" / "compvis" / checkpoint.name).symlink_to(checkpoint)
    url = f"http://127.0.0.1:{free_port()}"
    text = config(worker.horde, more=f"page_password: {PASSWORD}\n")
    text = text.replace("page: ''", f"page: {url}").replace("tester", "another tester")
    (tmp_path / "bridgeData.yaml").write_text(text, "utf-8")
    with start(tmp_path, "loop", subprocess.DEVNULL) as running:
        wait_for(lambda: running.poll() is not None or _answers(url))
        with looking(browser, url) as tab:
            for button in ("Log out", "Stop"):
                tab.get_by_label("Password").fill(PASSWORD)
                tab.get_by_role("button", name="Log in").click()
                expect(tab.locator("#worker")).to_have_text("another tester", timeout=LONG_MS)
                expect(tab.locator("#state")).to_have_class("state good", timeout=LONG_MS)
                tab.get_by_role("button", name=button, exact=True).click()
            tab.get_by_role("dialog").get_by_role("button", name="Stop").click()
            tab.get_by_label("Password").fill(PASSWORD)
            tab.get_by_role("button", name="Log in").click()
            tab.get_by_role("button", name="Start again").click()
            tab.get_by_label("Password").fill(PASSWORD)
            tab.get_by_role("button", name="Log in").click()
            expect(tab.locator("#state")).to_have_class("state good", timeout=LONG_MS)
        running.terminate()
        assert running.wait(120) == 0


def test_a_lora_of_an_earlier_life_is_removed(browser: Browser, worker: WholeWorker):
    with shown(browser, worker, "Models") as tab:
        tab.get_by_role("button", name=f"Remove {LORA}").click()
        tab.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(tab.locator("#lora-told")).to_contain_text("freed", timeout=LONG_MS)
        expect(tab.locator("#lora-rows")).not_to_contain_text(LORA)
    assert not list(worker.config_file.parent.glob("models/lora/*.safetensors"))


def test_the_hordes_record_queue_and_reward_are_shown(browser: Browser, worker: WholeWorker):
    with shown(browser, worker, "The horde's side") as tab:
        body = tab.locator("#horde-body")
        for told in ("online in all", "requests done", "introduced as", "allow_lora"):
            expect(body).to_contain_text(told, timeout=LONG_MS)
        queues = tab.get_by_role("region", name="Queues of this worker's models")
        expect(queues.get_by_role("row").filter(has_text=MODEL)).to_have_count(1)


def test_a_model_that_is_added_is_offered_and_one_that_is_removed_is_not(
    browser: Browser, worker: WholeWorker
):
    with shown(browser, worker, "Models") as tab:
        tab.get_by_role("button", name=f"Add {ADDED}").click()
        tab.get_by_role("dialog").get_by_role("button", name="Download").click()
        row = tab.locator("#model-rows tr").filter(has_text=ADDED)
        expect(row).to_contain_text("served", timeout=LONG_MS)
        wait_for(lambda: ADDED in worker.offered())
        assert ADDED in load_config(worker.config_file).models_to_load
        tab.get_by_role("button", name=f"Remove {ADDED}").click()
        tab.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(row).to_contain_text("not here", timeout=LONG_MS)
        wait_for(lambda: ADDED not in worker.offered())
    worker.wait_for_all(worker.ask(FAST))


def test_the_log_and_the_past_are_shown(browser: Browser, worker: WholeWorker):
    with shown(browser, worker, "Log") as tab:
        expect(tab.locator("#lines")).to_contain_text(f"offering {MODEL}", timeout=LONG_MS)
        go_to(tab, "Over time")
        tab.get_by_role("button", name="Week").click()
        expect(tab.get_by_role("heading", name="Seconds a megapixelstep")).to_be_visible()
        expect(tab.locator("#charts svg")).to_have_count(4)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_serious(browser: Browser, worker: WholeWorker, scheme: str):
    with looking(browser, worker.url, color_scheme=scheme) as tab:
        for view in ("Now", "Over time", "The horde's side", "Models", "Settings", "Log"):
            go_to(tab, view)
            if view == "The horde's side":
                expect(tab.locator("#horde-body")).to_contain_text("allow_lora", timeout=LONG_MS)
            assert serious_problems(tab) == [], view

"""The page in a real Chromium: each thing on it by clicking it, at three widths, dark and light."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from tests.support.browser import LONG_MS, chromium, go_to, looking
from tests.support.family_files import sd1_header
from tests.support.open_page import PASSWORD, OpenPage, at_work, open_page
from tests.support.owner import PROJECT
from tests.support.reference_server import ReferenceServer, reference_server
from tests.support.simulated_nvml import SimulatedCard, SimulatedNvml
from tests.worker.service.test_overview import slots
from worker.config.config import load_config
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.ledger import Ledger
from worker.jobs.results import ImageEnd, JobStage
from worker.line.devices.device_state import DeviceState
from worker.line.pausing import PauseCause, PauseKind, PauseReason
from worker.loras.files import LoraRecord
from worker.page.access import hashed
from worker.page.log_lines import MOST_LINES
from worker.safety.gallery import MOST_PICTURES
from worker.service.history import FILE as HISTORY
from worker.service.history import History
from worker.service.orders import Order
from worker.service.overview import Overview
from worker.service.state_folder import STATE

VIEWS = ("Now", "Over time", "The horde's side", "Models", "Settings", "Log")
CHECKS = (PROJECT / "tests" / "support" / "readable.js").read_text("utf-8")


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[ReferenceServer]:
    header = tmp_path_factory.mktemp("site") / "header"
    with reference_server() as site:
        for number, name in enumerate(("Deliberate", "Two"), 1):
            site.offer_model(name, sd1_header(header, number))
        yield site


@pytest.fixture
def served(tmp_path: Path, site: ReferenceServer) -> Generator[OpenPage]:
    with open_page(tmp_path, f"model_reference: {site.url}/reference\n") as opened:
        yield opened


def test_now_tells_the_job_and_follows_what_the_worker_does(browser: Browser, served: OpenPage):
    with looking(browser, served.url) as tab:
        state, job = tab.locator("#sentence"), tab.locator("#job")
        expect(state).to_have_text("It serves the horde, and is making a picture with Deliberate.")
        expect(job).to_contain_text("768 · step 12 of 30 · about 5 s left")
        expect(job).to_contain_text("a <b>bold</b> LoRA")
        expect(tab.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "40")
        expect(tab.locator("#memory")).to_contain_text("is left to other programs")
        expect(tab.locator("#others")).to_contain_text("2 in hand, 7 done, 1 failed, 9.50 kudos")
        reason = PauseReason(PauseCause.pause_for, "steam is running", PauseKind.at_once)
        served.watched.orders.answer(Overview(doing="paused", pauses=(reason,)))
        expect(state).to_have_text("It is paused. Steam is running.", timeout=LONG_MS)


def test_each_of_several_cards_is_shown_with_what_it_does(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    SimulatedNvml([SimulatedCard("RTX 4090", f"GPU-{n}", celsius=60 + n) for n in (0, 1)]).install(
        monkeypatch
    )
    devices = (
        DeviceState("left", "0", "GPU-0", "working", model="Deliberate"),
        DeviceState("right", "1", "GPU-1", "paused", why="right has 90 °C"),
        DeviceState("gone", "2", "GPU-2", "out", why="the card has fallen off the bus"),
    )
    with open_page(tmp_path) as opened, looking(browser, opened.url) as tab:
        opened.watched.orders.answer(at_work().beside((), devices))
        cards = tab.locator("#device-list article")
        expect(cards).to_have_count(3, timeout=LONG_MS)
        for card, told in zip(
            cards.all(),
            (
                ("left", "working on Deliberate", "60 °C", "2.3 GB of 8.6 GB", "RTX 4090"),
                ("right", "paused", "right has 90 °C", "61 °C"),
                ("gone", "out", "fallen off the bus", "Its driver does not answer."),
            ),
            strict=True,
        ):
            for words in told:
                expect(card).to_contain_text(words)


def test_forms_have_a_chart_of_their_own_where_there_were_any(browser: Browser, served: OpenPage):
    journal = Journal(Ledger(None))
    forms = journal.of(Kind.form)
    for name in ("f", "g"):
        forms.popped(slots(name), "palette")
        forms.ended(name, name, ImageEnd(JobStage.submitted, kudos=1.0))
    with closing(History(served.watched.home / STATE / HISTORY)) as earlier:
        earlier.note(journal.view(), journal.views_beside())
    with looking(browser, served.url) as tab:
        go_to(tab, "Over time")
        expect(tab.locator("#charts")).to_contain_text("2 forms in all")
        expect(tab.get_by_role("heading", name="Texts")).to_have_count(0)


def test_orders_are_given_by_buttons(browser: Browser, served: OpenPage):
    orders = served.watched.orders
    with looking(browser, served.url) as tab:
        tab.get_by_label("How long to pause").select_option("for an hour")
        tab.get_by_role("button", name="Pause").click()
        expect(tab.locator("#ordered")).to_contain_text("It pauses")
        given = orders.given()
        assert given
        assert given.order is Order.pause
        assert abs((given.until or 0) - time.time() - 3600) < 60
        orders.answer(Overview(doing="paused"))
        tab.get_by_role("button", name="Resume").click()
        expect(tab.locator("#ordered")).to_contain_text("It serves again")
        assert orders.is_given(Order.serve)
        for name, order in (("Drain", Order.drain), ("Stop", Order.stop)):
            tab.get_by_role("button", name=name, exact=True).click()
            tab.get_by_role("button", name="Cancel").click()
            assert not orders.is_given(order)
            tab.get_by_role("button", name=name, exact=True).click()
            tab.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()
            expect(tab.get_by_role("dialog")).to_be_hidden()
            expect(tab.locator("#ordered")).to_contain_text(
                "then it ends" if order is Order.drain else "It stops"
            )
            assert orders.is_given(order)


def test_settings_are_changed_and_wrong_ones_told(browser: Browser, served: OpenPage):
    with looking(browser, served.url) as tab:
        go_to(tab, "Settings")
        tab.get_by_label("max_power", exact=True).fill("4000")
        tab.get_by_role("button", name="Save").click()
        expect(tab.locator("#saved")).to_contain_text("max_power: 4000; expected a whole number")
        tab.get_by_label("max_power", exact=True).fill("32")
        tab.get_by_label("nsfw", exact=True).uncheck()
        tab.get_by_role("button", name="Save").click()
        expect(tab.locator("#saved")).to_contain_text("max_power, nsfw: counts from the next job")
        config = load_config(served.watched.config_file)
        assert (config.max_power, config.nsfw) == (32, False)
        expect(tab.get_by_label("horde_url", exact=True)).to_be_disabled()


def test_a_model_is_added_paused_resumed_cancelled_and_removed_by_clicks(
    browser: Browser, served: OpenPage, site: ReferenceServer
):
    rest = site.hold("/files/Two.safetensors")
    with looking(browser, served.url) as tab:
        go_to(tab, "Models")
        downloads, dialog = tab.locator("#downloads"), tab.get_by_role("dialog")
        for last in ("Cancel", "Resume"):
            tab.get_by_role("button", name="Add Two").click()
            expect(dialog).to_contain_text("to download; the disk has")
            dialog.get_by_role("button", name="Download").click()
            tab.get_by_role("button", name="Pause the download of Two").click()
            rest.set()
            expect(downloads).to_contain_text("Two: paused at", timeout=LONG_MS)
            tab.get_by_role("button", name=f"{last} the download of Two").click()
            if last == "Cancel":
                dialog.get_by_role("button", name="Cancel it").click()
                expect(downloads).to_contain_text("Two: its download was cancelled")
                rest.clear()
        expect(downloads).to_contain_text("Two: here", timeout=LONG_MS)
        row = tab.get_by_role("row").filter(has_text="Two")
        expect(row.get_by_role("cell").nth(3)).to_have_text("yes", timeout=LONG_MS)
        assert load_config(served.watched.config_file).models_to_load == ("Deliberate", "Two")
        assert "Two" in served.watched.offering.served
        tab.get_by_role("button", name="Remove Two").click()
        dialog.get_by_role("button", name="Remove").click()
        expect(tab.locator("#model-told")).to_contain_text("freed")
        assert load_config(served.watched.config_file).models_to_load == ("Deliberate",)


def test_a_single_lora_of_the_cache_is_removed(browser: Browser, served: OpenPage):
    folder = served.watched.adapters.loras.path_of("x").parent
    (folder / "own.safetensors").write_bytes(b"the owner's")
    about = LoraRecord(name="a <b>bold</b> LoRA", model_id=1, version_id=2, size_bytes=9)
    with served.watched.adapters.loras.arrival("1-2", about, "a-job") as path:
        path.write_bytes(b"some file")
    with looking(browser, served.url) as tab:
        go_to(tab, "Models")
        rows = tab.locator("#lora-rows")
        expect(rows).to_contain_text("a <b>bold</b> LoRA")
        expect(rows).to_contain_text("own")
        remove = tab.get_by_role("button", name="Remove a <b>bold</b> LoRA")
        expect(rows.get_by_role("button")).to_have_count(1)
        for told in ("is needed by a job in hand", "freed"):
            remove.click()
            tab.get_by_role("dialog").get_by_role("button", name="Remove").click()
            expect(tab.locator("#lora-told")).to_contain_text(told)
            served.watched.adapters.release("a-job")
        expect(rows).not_to_contain_text("bold")
        assert not path.exists()


SEEN = """(image) => image.decode().then(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 64, 64);
  return [...context.getImageData(0, 0, 64, 1).data].filter((_, place) => place % 4 === 0);
})"""


def test_pictures_are_shown_to_who_wants_them_and_unsafe_ones_blurred(
    browser: Browser, tmp_path: Path
):
    stripes = Image.frombytes("L", (64, 1), bytes([0, 255] * 32)).resize((64, 64))
    file = io.BytesIO()
    stripes.convert("RGB").save(file, "WEBP", lossless=True)
    with open_page(tmp_path, "show_pictures: true\n") as page, looking(browser, page.url) as tab:
        gallery = page.watched.gallery
        assert gallery is not None
        for is_nsfw in (False, True):
            gallery.add(file.getvalue(), is_nsfw=is_nsfw)
        expect(tab.locator("#pictures")).to_contain_text("did not ask for you to see them")
        images = tab.locator("#pictures img")
        expect(images).to_have_count(2)
        contrasts = [
            max(seen) - min(seen) for seen in (each.evaluate(SEEN) for each in images.all())
        ]
        assert contrasts[0] < 60 < 180 < contrasts[1]  # the newest comes first
        expect(images.first).to_have_attribute("alt", re.compile("blurred"))
        for _ in range(MOST_PICTURES):
            gallery.add(file.getvalue(), is_nsfw=False)
        expect(images).to_have_count(MOST_PICTURES)
        assert page.get("/pictures/1").status_code == 404


def test_without_the_owners_wish_there_are_no_pictures(browser: Browser, served: OpenPage):
    with looking(browser, served.url) as tab:
        expect(tab.locator("#sentence")).to_contain_text("serves")
        expect(tab.locator("#pictures")).to_be_hidden()
    assert served.get("/pictures/1").status_code == 404


def test_the_log_is_filtered_and_copied(
    browser: Browser, served: OpenPage, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    log = logging.getLogger("worker.test")
    log.info("all is well")
    with looking(browser, served.url, permissions=["clipboard-read", "clipboard-write"]) as tab:
        go_to(tab, "Log")
        expect(tab.locator("#lines")).to_contain_text("all is well")
        log.warning("the <i>horde</i> is away")
        expect(tab.locator("#lines")).to_contain_text("the <i>horde</i> is away", timeout=LONG_MS)
        tab.get_by_label("Level").select_option("warnings and errors")
        tab.get_by_label("Search").last.fill("is AWAY")
        expect(tab.locator("#lines li")).to_have_count(1)
        tab.get_by_role("button", name="Copy").click()
        expect(tab.locator("#copied")).to_have_text("1 lines are copied.")
        assert "is away" in tab.evaluate("navigator.clipboard.readText()")


def test_a_page_left_open_for_a_week_keeps_the_last_lines_and_goes_on(
    browser: Browser, served: OpenPage, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    with looking(browser, served.url) as tab:
        tab.clock.install()
        tab.reload()
        go_to(tab, "Log")
        log = logging.getLogger("worker.test")
        for part in range(3):
            for number in range(MOST_LINES):
                log.info("line %d of part %d", number, part)
            expect(tab.locator("#lines li").last).to_contain_text(f"of part {part}")
        expect(tab.locator("#lines li")).to_have_count(MOST_LINES)
        tab.clock.fast_forward(7 * 86400 * 1000)
        served.watched.orders.answer(Overview(doing="paused"))
        expect(tab.locator("#sentence")).to_have_text("It is paused.")
        expect(tab.get_by_role("alert")).to_be_hidden()


def test_a_newer_release_is_told_with_the_command_that_takes_it(browser: Browser, served: OpenPage):
    release = {
        "version": "99.0.1",
        "link": "https://x",
        "ours": "1",
        "command": "take --self",
        "can_take": True,
    }

    def answer(route: Route) -> None:
        """As the worker's own answer would be where GitHub has told of one."""
        told = route.fetch()
        route.fulfill(response=told, json={**told.json(), "release": release})

    with looking(browser, served.url) as tab:
        tab.route("**/api/horde", answer)
        go_to(tab, "The horde's side")
        expect(tab.locator("#horde-body")).to_contain_text("Version 99.0.1 is there; this is 1.")
        expect(tab.locator("#horde-body code")).to_have_text("take --self")
        tab.get_by_role("button", name="Take the new version").click()
        tab.get_by_role("dialog").get_by_role("button", name="Take it").click()
        # No release of its own: this worker's page says why it takes none.
        expect(tab.locator("#horde-body")).to_contain_text(
            re.compile("there is no newer release|this is not a git clone")
        )


def test_a_lost_connection_is_said(browser: Browser, tmp_path: Path):
    with open_page(tmp_path) as page, looking(browser, page.url) as tab:
        expect(tab.locator("#sentence")).to_contain_text("serves")
        page.server.close()
        expect(tab.get_by_role("alert")).to_contain_text("The connection is lost", timeout=LONG_MS)


def test_a_password_is_asked_for_and_the_logout_ends_it(browser: Browser, tmp_path: Path):
    more = f"page_password: {hashed(PASSWORD)}\n"
    with open_page(tmp_path, more) as page, looking(browser, page.url) as tab:
        assert tab.evaluate(CHECKS) == []
        field = tab.get_by_label("Password")
        field.fill("wrong password")
        field.press("Enter")
        expect(tab.get_by_role("alert")).to_have_text("that is not the password")
        field.fill(PASSWORD)
        tab.get_by_role("button", name="Log in").click()
        expect(tab.locator("#sentence")).to_contain_text("serves")
        tab.get_by_role("button", name="Log out").click()
        expect(field).to_be_visible()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (768, "light"), (1280, "dark")])
def test_every_view_can_be_used_and_read(
    browser: Browser, served: OpenPage, width: int, scheme: str
):
    served.watched.orders.answer(at_work())
    how = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with looking(browser, served.url, **how) as tab:
        expect(tab.locator("#sentence")).to_contain_text("serves")
        for view in VIEWS:
            go_to(tab, view)
            expect(tab.locator("main > section:not([hidden])")).to_have_count(1)
            if view == "The horde's side":
                expect(tab.locator("#horde-body")).to_contain_text("Kinds of jobs")
            if view == "Settings":
                expect(tab.get_by_label("max_power", exact=True)).to_be_visible()
            assert tab.evaluate(CHECKS) == [], view


def test_it_is_used_by_the_keyboard_alone(browser: Browser, served: OpenPage):
    with looking(browser, served.url) as tab:
        expect(tab.locator("#sentence")).to_contain_text("serves")
        reached: list[str] = []
        for _ in range(14):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.textContent.trim()"))
        assert reached[0] == "Skip to the content"
        assert {*VIEWS, "Pause", "Drain", "Stop"} <= {*reached}
        tab.get_by_role("button", name="Stop").focus()
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("button", name="Cancel")).to_be_focused()
        tab.keyboard.press("Escape")
        expect(tab.get_by_role("dialog")).to_be_hidden()
        assert not served.watched.orders.is_given(Order.stop)

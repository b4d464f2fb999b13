"""What is installed from the page, by the set-up of a clone: a script that says what it does."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from hordelib.safety import csam
from tests.support.browser import chromium, go_to, looking
from tests.support.open_page import open_page
from tests.support.owner import wait_for
from worker.config.keys import BridgeConfig
from worker.errors import UsageError
from worker.page.extras import Extras

CONFIG = BridgeConfig.model_validate({"api_key": "a-key", "dreamer_name": "a"})


@dataclass
class Clone:
    folder: Path

    def does(self, script: str) -> None:
        """What its set-up does from now on."""
        file = self.folder / "update-runtime.sh"
        file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        file.chmod(0o755)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setattr("worker.page.extras.PROJECT", tmp_path)
    return Clone(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with chromium() as browser:
        yield browser


def row_of(extras: Extras, name: str) -> dict[str, object]:
    return next(row for row in extras.shown() if row["name"] == name)


def test_its_progress_is_shown_and_its_failure_told(clone: Clone):
    clone.does('echo "step 2: $*"; until [ -e go-on ]; do sleep 0.1; done; echo no disk; exit 3')
    extras = Extras(CONFIG, clone.folder)
    extras.install("apprise")
    wait_for(lambda: extras.progress["line"] == "step 2: --notify")
    with pytest.raises(UsageError, match="apprise is being installed"):
        extras.install("apprise")
    (clone.folder / "go-on").touch()
    wait_for(lambda: not extras.progress["name"])
    assert row_of(extras, "apprise")["problem"] == "no disk (exit code 3)"


def test_what_has_come_has_no_problem_any_more(clone: Clone):
    extras = Extras(CONFIG, clone.folder)
    for script, problem in (("exit 3", "it begins (exit code 3)"), ("echo done", "")):
        clone.does(script)
        extras.install("apprise")
        wait_for(lambda: not extras.progress["name"])
        assert row_of(extras, "apprise")["problem"] == problem


def test_the_checker_of_the_horde_is_installed_by_a_click(browser: Browser, clone: Clone):
    clone.does('echo "step 2 of 4: $*"; exit 4')
    with open_page(clone.folder / "home") as page, looking(browser, page.url) as tab:
        go_to(tab, "Settings")
        told = tab.locator("#extras")
        expect(told).to_contain_text("horde_safety is not installed")
        if csam.is_installed():  # its files come by a command of the worker itself
            return
        tab.get_by_role("button", name="Install horde_safety").click()
        expect(told).to_contain_text("step 2 of 4: --safety --no-weights (exit code 4)")


def test_outside_of_a_clone_the_command_is_told(clone: Clone):
    extras = Extras(CONFIG, clone.folder)
    assert row_of(extras, "apprise")["by_hand"]
    with pytest.raises(UsageError, match="from the page here: "):
        extras.install("apprise")
    with pytest.raises(UsageError, match="'rm -rf' can't be installed"):
        extras.install("rm -rf")
    assert "extras" not in {thread.name for thread in threading.enumerate()}

"""A Chromium that is there, or Debian's, which is installed where that may be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

LONG_MS = 60_000
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LACKING = "the page is not tried in a browser: install one (Debian: apt install chromium)"


@contextmanager
def chromium() -> Generator[Browser]:
    """Skips the test, in one line, where there is none and none may be installed."""
    path = _found() or _installed()
    if path is None:
        pytest.skip(LACKING)
    expect.set_options(timeout=LONG_MS)  # a busy machine draws slowly
    with sync_playwright() as playwright:
        # As root, in a container, Chromium's own sandbox does not start.
        arguments = ["--no-sandbox"] if os.name == "posix" and os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def _found() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def _installed() -> str | None:
    if os.name != "posix" or os.getuid() != 0 or not shutil.which("apt-get"):
        return None
    for command in (["update", "-q"], ["install", "-y", "-q", "chromium"]):
        done = subprocess.run(
            ["apt-get", *command],
            check=False,
            capture_output=True,
            timeout=300,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        if done.returncode:
            return None
    return _found()


@contextmanager
def looking(browser: Browser, url: str, **how: Any) -> Generator[Page]:
    """A tab of its own on the page, which meets no error of a script."""
    problems: list[str] = []
    options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, **how}
    context = browser.new_context(**options)
    context.set_default_timeout(LONG_MS)
    tab = context.new_page()
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.goto(url)
    yield tab
    context.close()
    assert problems == []


def go_to(tab: Page, view: str) -> None:
    tab.get_by_role("link", name=view, exact=True).click()
    expect(tab.get_by_role("link", name=view, exact=True)).to_have_attribute("aria-current", "page")

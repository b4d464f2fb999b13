"""News of releases over real HTTP, and a worker that makes way for one by itself."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.owner import PROJECT
from worker.cli.check import version_finding
from worker.config.keys import BridgeConfig
from worker.errors import UsageError
from worker.service import releases
from worker.service.orders import Order, Orders
from worker.service.releases import Release
from worker.service.updates import Updates
from worker.setup.finding import Verdict
from worker.version import VERSION

NEWER = Release("99.0.1")


def config_of(auto_update: str = "tell") -> BridgeConfig:
    return BridgeConfig.model_validate(
        {"api_key": "a-key-of-the-owner-0001", "dreamer_name": "a", "auto_update": auto_update}
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the project's page was asked for; it tells of version 99.0.1."""
    asked: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps({"tag_name": f"v{NEWER.version}"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/latest"
        monkeypatch.setattr(releases, "LATEST", address)
        yield asked
        server.shutdown()
        thread.join()


def test_check_names_a_newer_release_and_asks_once_a_day(tmp_path: Path, asked: list[str]):
    for _ in range(2):
        found = version_finding(config_of(), tmp_path)
        assert found.verdict is Verdict.warning
        assert found.detail.startswith(f"{VERSION}, and 99.0.1 is there: https://")
        assert found.remedy
    assert asked == ["/latest"]


def test_nobody_is_asked_where_the_owner_forbids_it(tmp_path: Path, asked: list[str]):
    found = version_finding(config_of("never"), tmp_path)
    assert (found.verdict, found.detail) == (Verdict.ok, VERSION)
    local = config_of().model_copy(update={"horde_url": "http://127.0.0.1:7001"})
    assert version_finding(local, tmp_path).verdict is Verdict.ok
    assert asked == []


def test_no_network_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(releases, "LATEST", "http://127.0.0.1:1/latest")
    assert version_finding(config_of(), tmp_path).verdict is Verdict.ok


def clone_in(folder: Path, *, look: str = "exit 0") -> Path:
    """Its two scripts tell how they were called; `look` is what `--self --look` does."""
    (folder / ".git").mkdir(parents=True)
    for name in ("update-runtime.sh", "horde-bridge.sh"):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\n[ "$2" != --look ] || {{ {look}\n}}\necho {name} "$@"\nexit 1\n'
        )
        script.chmod(0o755)
    return folder


def updates_of(home: Path, clone: Path) -> Updates:
    (home / "state").mkdir(exist_ok=True)
    Orders(home / "state").begin()  # a new life, whatever became of the one before
    return Updates(config_of("drain"), home, lambda: NEWER, clone)


def drains(updates: Updates, home: Path) -> bool:
    updates.look()
    is_told = Orders(home / "state").is_given(Order.drain)
    assert is_told == (updates.taken == NEWER.version)
    return is_told


def tried(home: Path, seconds_ago: float) -> None:
    """The clock shows that the latest try was so long ago."""
    path = home / "state" / "update_tried.json"
    tries = json.loads(path.read_bytes())
    path.write_text(json.dumps({**tries, "latest": time.time() - seconds_ago}))


def test_a_release_that_came_to_nothing_is_tried_again_ever_later(tmp_path: Path):
    clone = clone_in(tmp_path / "clone")
    assert updates_of(tmp_path, clone).is_possible
    for hours in (1, 2, 4, 8, 16, 24, 24):
        assert drains(updates_of(tmp_path, clone), tmp_path)
        again = updates_of(tmp_path, clone)
        tried(tmp_path, hours * 3600 - 60)
        assert not drains(again, tmp_path)
        assert again.go_on([]) is None
        tried(tmp_path, hours * 3600 + 60)


def test_its_owner_has_it_taken_at_once_and_a_pause_goes_on_afterwards(tmp_path: Path):
    orders = Orders(tmp_path / "state")
    refusing = updates_of(tmp_path, clone_in(tmp_path / "no", look="echo no tag >&2; exit 1"))
    with pytest.raises(UsageError, match=r"99\.0\.1 can't be taken: no tag"):
        refusing.take()
    with pytest.raises(UsageError, match="this is not a git clone"):
        Updates(config_of(), tmp_path, lambda: NEWER, tmp_path).take()
    orders.give(Order.pause)
    updates = Updates(config_of(), tmp_path, lambda: NEWER, clone_in(tmp_path / "clone"))
    updates.take()
    assert (updates.taken, orders.is_given(Order.drain)) == (NEWER.version, True)
    orders.begin()
    assert orders.is_given(Order.pause)


def test_the_tries_of_one_release_delay_no_other(tmp_path: Path):
    clone = clone_in(tmp_path / "clone")
    assert drains(updates_of(tmp_path, clone), tmp_path)
    path = tmp_path / "state" / "update_tried.json"
    path.write_text(path.read_text().replace(NEWER.version, "99.0.0"))
    assert drains(updates_of(tmp_path, clone), tmp_path)


def test_it_serves_on_until_the_release_is_fetched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """No network, a clone that was changed, a tag that is not there yet: told once, tried again."""
    fails = '[ -e "$0.reached" ] && exit 0; echo "error: no route to it" >&2; exit 1'
    clone = clone_in(tmp_path / "clone", look=fails)
    updates = updates_of(tmp_path, clone)
    for _ in range(2):
        assert not updates.look()
        assert not updates.taken
    (told,) = caplog.messages
    assert told == "the release 99.0.1 is not taken, and tried again later: no route to it"
    (clone / "update-runtime.sh.reached").touch()
    assert drains(updates, tmp_path)


def test_it_goes_on_as_the_set_up_then_as_a_worker(tmp_path: Path):
    home = tmp_path / "a home"
    (home / "state").mkdir(parents=True)
    clone = clone_in(tmp_path / "a clone")
    program = (
        "from pathlib import Path; from tests.worker.service.test_updates import *\n"
        f"updates = Updates(config_of('drain'), Path({str(home)!r}), lambda: NEWER,"
        f" Path({str(clone)!r}))\n"
        "updates.look(); updates.go_on(['--plain']); print('never')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        f"update-runtime.sh --self --home {home}",
        f"horde-bridge.sh --home {home} run --plain",
    ]


@pytest.mark.parametrize("auto_update", ["tell", "never"])
def test_it_drains_only_while_it_is_told_to(tmp_path: Path, auto_update: str):
    config = config_of(auto_update)
    updates = Updates(config, tmp_path, lambda: NEWER, clone_in(tmp_path / "clone"))
    assert not updates.is_wanted
    config.take_over(config_of("drain"))
    assert updates.is_wanted

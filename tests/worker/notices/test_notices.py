"""What an owner is written to about: each once, by a real HTTP receiver, with nothing secret."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.owner import Home, wait_for
from worker.cli.exit_codes import ExitCode
from worker.cli.notify_command import notify
from worker.config.config import load_config
from worker.config.keys import BridgeConfig
from worker.config.values import CLIENT_AGENT, NoticeKind
from worker.errors import ConfigError, DocumentMissing, UsageError
from worker.models.files.on_disk import DISK_FLOOR_BYTES
from worker.net.cached_documents import Documents
from worker.notices import notifier
from worker.notices.attention import ASK_SECONDS, WELL_SECONDS, Attention, Notice, Seen
from worker.notices.notifier import Notifier
from worker.notices.posting import Sent
from worker.service.overview import JobOverview, Overview
from worker.service.releases import Release, newer_release

KEY = "an-api-key-of-the-owner"


def config_of(*addresses: str, **more: Any) -> BridgeConfig:
    told = {"api_key": KEY, "dreamer_name": "my rig", "models_to_load": ["demo"]}
    return BridgeConfig.model_validate({**told, "notify": addresses, **more})


@dataclass
class Rig:
    """A running worker whose readings are set by a test, and the owner's folder of its state."""

    state: Path
    config: BridgeConfig = field(default_factory=config_of)
    doing: str = "serving"
    why: str = ""
    images: int = 0
    is_at_work: bool = False
    free_bytes: int = 1 << 40
    withdrawn: dict[str, str] = field(default_factory=dict[str, str])
    queues: Mapping[str, float] | None = None
    newest: Release | None = None
    now: float = 1000.0
    asked: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.attention = Attention(self.config, self.state, lambda: self.now)

    def look(self, after: float = 0.0) -> list[Notice]:
        self.now += after
        return self.attention.look(
            Seen(
                overview=self.overview,
                withdrawn=lambda: self.withdrawn,
                free_bytes=lambda: self.free_bytes,
                idle_reason=lambda: "skipped requests: models 3",
                queues=self.ask_queues,
                newest=lambda: self.newest,
            )
        )

    def kinds(self, after: float = 0.0) -> list[str]:
        return [notice.kind.value for notice in self.look(after)]

    def overview(self) -> Overview:
        job = JobOverview(id="an-id", model="demo", stage="running", images=1)
        return Overview(
            doing=self.doing,
            why=self.why,
            images=self.images,
            models=tuple({"demo", "other"} - self.withdrawn.keys()),
            jobs=(job,) if self.is_at_work else (),
        )

    def ask_queues(self) -> Mapping[str, float]:
        self.asked += 1
        if self.queues is None:
            raise DocumentMissing("the horde does not say")
        return self.queues


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_maintenance_is_told_once_until_it_is_over_also_over_restarts(rig: Rig):
    assert rig.kinds() == []
    rig.doing, rig.why = "in maintenance", "on hold: a moderator. Remedy: do something"
    (notice,) = rig.look()
    assert "no jobs but your own" in notice.body
    assert "Remedy: do something" in notice.body
    assert 'notify_skip: ["maintenance"]' in notice.body
    rig.restart()
    assert rig.kinds() == []
    rig.doing = "paused"
    assert rig.kinds() == []
    rig.doing = "serving"
    rig.look()
    rig.doing = "in maintenance"
    assert rig.kinds() == ["maintenance"]


def test_a_disk_that_is_nearly_full_is_told_once_until_there_is_room_again(rig: Rig):
    for free_bytes, told in (
        (DISK_FLOOR_BYTES, []),
        (DISK_FLOOR_BYTES - 1, ["disk"]),
        (DISK_FLOOR_BYTES, []),
        (DISK_FLOOR_BYTES - 1, []),  # that was no room worth the name
        (2 * DISK_FLOOR_BYTES, []),
        (0, ["disk"]),
    ):
        rig.free_bytes = free_bytes
        assert rig.kinds() == told, free_bytes


def test_hours_without_a_job_are_told_only_where_requests_wait_for_its_models(rig: Rig):
    rig.queues = {"demo": 0.0, "not ours": 9.0}
    rig.look()
    assert rig.kinds(after=6 * 3600 + 1) == []
    assert rig.asked == 1
    rig.queues = {"demo": 2.5}
    assert rig.kinds(after=1) == []  # the horde is not asked every few seconds
    assert rig.asked == 1
    (notice,) = rig.look(after=ASK_SECONDS)
    assert "No job has come for 7 hours, although requests wait for demo." in notice.body
    assert "skipped requests: models 3" in notice.body
    assert rig.kinds(after=ASK_SECONDS) == []
    rig.images += 1
    rig.look()
    assert rig.kinds(after=6 * 3600 + 1) == ["no_jobs"]


@pytest.mark.parametrize("reason", ["paused", "trouble", "work"])
def test_hours_in_which_it_did_not_wait_for_jobs_do_not_count(rig: Rig, reason: str):
    rig.queues = {"demo": 2.5}
    rig.doing = "paused" if reason == "paused" else "serving"
    rig.why = "the horde can't be reached" if reason == "trouble" else ""
    rig.is_at_work = reason == "work"
    assert rig.kinds(after=24 * 3600) == []
    rig.doing, rig.why, rig.is_at_work = "serving", "", False
    assert rig.kinds(after=3600) == []
    assert rig.kinds(after=6 * 3600) == ["no_jobs"]


def test_a_model_that_stays_withdrawn_is_told_once_with_the_reason(rig: Rig):
    rig.withdrawn = {"demo": "its file is damaged"}
    assert rig.kinds() == []  # its file may just be replaced
    (notice,) = rig.look(after=301)
    assert "demo is not offered any more: its file is damaged" in notice.body
    rig.restart()
    assert rig.kinds(after=301) == []
    assert rig.kinds(after=301) == []
    rig.withdrawn = {}
    rig.look()
    rig.withdrawn = {"demo": "again"}
    rig.look()
    assert rig.kinds(after=301) == ["model_withdrawn"]


def test_each_new_version_is_told_once(rig: Rig):
    rig.newest = Release("9.0.0")
    (notice,) = rig.look()
    assert "9.0.0" in notice.title
    assert notice.told.endswith("/releases")
    rig.restart()
    assert rig.kinds(after=ASK_SECONDS) == []
    rig.newest = Release("9.1.0")
    assert rig.kinds(after=ASK_SECONDS) == ["new_version"]


def test_a_stop_by_an_error_is_told_once_while_the_system_starts_it_again_and_again(rig: Rig):
    (notice,) = rig.attention.stopped("the engine died 3 times")
    assert "It ended by itself: the engine died 3 times" in notice.body
    for _ in range(2):
        rig.restart()
        rig.look()
        assert rig.attention.stopped("the engine died 4 times") == []
    assert len(rig.attention.stopped("the disk is full")) == 1
    rig.look()
    rig.look(after=WELL_SECONDS)
    assert len(rig.attention.stopped("the engine died 3 times")) == 1


def test_what_the_owner_skips_is_neither_told_nor_asked_for(tmp_path: Path):
    rig = Rig(tmp_path, config_of(notify_skip=[kind.value for kind in NoticeKind]))
    rig.doing, rig.free_bytes, rig.queues = "in maintenance", 0, {"demo": 1.0}
    rig.newest, rig.withdrawn = Release("9.0.0"), {"demo": "gone"}
    assert rig.kinds(after=1e6) == []
    assert rig.kinds(after=1e6) == []
    assert rig.attention.stopped("anything") == []
    assert rig.asked == 0


# ---- over real HTTP ------------------------------------------------------------------------


@dataclass
class Receiver:
    """What apprise's json:// has brought, and what GET is answered with."""

    port: int = 0
    got: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    release: object = None

    @property
    def address(self) -> str:
        return f"json://127.0.0.1:{self.port}/inbox"


@contextmanager
def receiving() -> Generator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(json.loads(body))
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(json.dumps(receiver.release).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture(name="receiver", scope="module")
def _receiver() -> Generator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(name="inbox")
def _inbox(receiver: Receiver) -> Receiver:
    receiver.got.clear()
    return receiver


@pytest.fixture(name="dead", scope="module")
def _dead() -> Generator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"json://127.0.0.1:{silent.getsockname()[1]}/a-secret-topic"


def test_a_notice_reaches_its_address_beside_a_dead_one_with_no_secret_in_it(
    inbox: Receiver, dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    monkeypatch.setattr(notifier, "LOOK_SECONDS", 0.01)
    rig = Rig(tmp_path)
    rig.doing, rig.why = "in maintenance", f"the horde said {KEY} to {dead}"
    config = config_of(dead, inbox.address)
    look = Seen(
        overview=rig.overview,
        withdrawn=dict[str, str],
        free_bytes=lambda: 1 << 40,
        idle_reason=str,
        queues=dict[str, float],
        newest=lambda: None,
    )
    with caplog.at_level(logging.WARNING), Notifier(config, tmp_path).watching(look):
        wait_for(lambda: inbox.got)
        wait_for(lambda: "tried again" in caplog.text)
    (got,) = inbox.got
    assert got["title"] == "Dreamer, my rig: in maintenance"
    assert "the horde said (left out) to (left out)" in got["message"]
    assert "address 1 (json)" in caplog.text
    assert "address 2" not in caplog.text
    assert "a-secret-topic" not in caplog.text


def test_addresses_that_did_not_take_a_notice_are_tried_again_and_then_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(notifier, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(notifier, "AGAIN_SECONDS", (0.0, 0.0))
    rig = Rig(tmp_path)
    rig.free_bytes = 0
    tried: list[tuple[str, ...]] = []

    def post(addresses: Any, title: str, body: str) -> tuple[Sent, ...]:
        tried.append(tuple(addresses))
        return tuple(Sent(each, "" if each.startswith("ok") else "gone") for each in addresses)

    writer = Notifier(config_of("ok://a", "no://b"), tmp_path, post)
    look = Seen(rig.overview, dict[str, str], lambda: 0, str, dict[str, float], lambda: None)
    with caplog.at_level(logging.WARNING), writer.watching(look):
        wait_for(lambda: "was not delivered" in caplog.text)
    assert tried == [("ok://a", "no://b"), ("no://b",), ("no://b",)]


def test_a_newer_release_is_found_and_nonsense_is_none(inbox: Receiver, tmp_path: Path):
    url = f"http://127.0.0.1:{inbox.port}/latest"
    for number, (tag, than, found) in enumerate(
        [("v0.10.0", "0.9.1", "0.10.0"), ("v0.9.1", "0.9.1", None), ("0.9", "0.9.0", None)]
    ):
        inbox.release = {"tag_name": tag, "body": "ignored"}
        documents = Documents(tmp_path / str(number), CLIENT_AGENT)
        newest = newer_release(documents, url, than)
        assert (newest.version if newest else None) == found
    inbox.release = {"tag_name": "nightly"}
    with pytest.raises(DocumentMissing):
        newer_release(Documents(tmp_path / "none", CLIENT_AGENT), url)


# ---- by the command line -------------------------------------------------------------------

BASE = "api_key: a-key\ndreamer_name: my rig\nmodels_to_load: ['no such model']\npage: ''\n"
LOCAL = "horde_url: http://127.0.0.1:9\nsafety: best_effort\n"


def test_the_command_sends_a_trial_and_says_what_came_of_each_address(home: Home, inbox: Receiver):
    home.write(f"{BASE}notify: ['nosuchservice://x/s3cret', '{inbox.address}']\n")
    code, output = home.run("notify")
    assert code == ExitCode.FAILED
    lines = [line for line in output.splitlines() if line.startswith("address")]
    assert lines == [
        "address 1 (nosuchservice): apprise knows no such address",
        "address 2 (json): sent",
    ]
    assert "s3cret" not in output
    (got,) = inbox.got
    assert got["title"] == "Dreamer, my rig: a trial"


def test_the_command_without_an_address_says_how_to_have_one(tmp_path: Path):
    with pytest.raises(UsageError, match="has no address to write to"):
        notify(config_of())
    file = tmp_path / "bridgeData.yaml"
    file.write_text(f"{BASE}notify: [4, 'no s3cret']\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    told = "\n".join(caught.value.problems)
    assert "notify[0]: what is written there is none (not shown here); expected a list of" in told
    assert "s3cret" not in told


def test_a_worker_that_an_error_ends_tells_its_owner_why(home: Home, inbox: Receiver):
    home.write(f"{BASE}{LOCAL}notify: {inbox.address}\n")
    code, output = home.run("run", "--plain")
    assert code == ExitCode.NO_MODEL, output
    (got,) = inbox.got
    assert got["title"] == "Dreamer, my rig: stopped by an error"
    assert "no such model" in got["message"]

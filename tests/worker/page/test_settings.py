from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.open_page import API_KEY, OpenPage, open_page
from worker.config.config import load_config
from worker.config.keys import EXPECTS
from worker.page.access import fits
from worker.page.settings import IN_THE_FILE

TOKEN = "a-token-of-the-owner"


@pytest.fixture
def page(tmp_path: Path) -> Generator[OpenPage]:
    with open_page(tmp_path, f"max_power: 8  # small\ncivitai_api_token: {TOKEN}\n") as opened:
        yield opened


def shown(page: OpenPage) -> dict[str, Any]:
    return page.get("/api/settings").json()


def save(page: OpenPage, version: str = "", /, **changes: object) -> tuple[int, dict[str, Any]]:
    body = {"version": version or shown(page)["version"], "changes": changes}
    reply = page.post("/api/settings", body)
    return reply.status_code, reply.json()


def test_every_key_is_there_with_its_words_and_no_secret(page: OpenPage):
    keys = {row["key"]: row for row in shown(page)["keys"]}
    assert list(keys) == list(EXPECTS)
    assert all(row["words"] and row["expects"] for row in keys.values())
    assert (keys["max_power"]["default"], keys["max_power"]["kind"]) == (8, "number")
    assert keys["vram_to_leave_free"]["value"] == "auto"
    assert keys["safety"]["choices"] == ["required", "best_effort"]
    assert keys["civitai_api_token"]["is_set"]
    text = page.get("/api/settings").text
    assert TOKEN not in text
    assert API_KEY not in text


def test_a_change_is_written_with_the_comments_kept_and_says_when_it_counts(page: OpenPage):
    changes: dict[str, object] = {
        "max_power": 32, "nsfw": False, "models_to_load": ["Deliberate", "top 2"],
        "pause_for": ["steam*"], "queue_size": 2, "max_lora_cache_size": 3,
    }  # fmt: skip
    code, told = save(page, **changes)
    assert code == 200
    assert told == {
        "now": ["pause_for"],
        "next job": ["max_power", "nsfw", "max_lora_cache_size"],
        "restart": ["models_to_load", "queue_size"],
    }
    assert page.watched.adapters.loras.most_bytes == 3 * 10**9
    now = page.watched.config.now
    assert (now.pause_for, now.max_power, now.nsfw) == (("steam*",), 32, False)
    assert (now.queue_size, now.models_to_load) == (1, ("Deliberate",))
    text = page.watched.config_file.read_text("utf-8")
    assert "max_power: 32  # small\n" in text
    assert '  - Deliberate  # the best\n  - "top 2"\n' in text
    assert load_config(page.watched.config_file).nsfw is False
    assert [path.name for path in page.watched.home.iterdir() if "backup" in path.name] == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_power": 4000}, "max_power: 4000; expected a whole number from 1 to 512"),
        ({"max_power": "many"}, "expected a whole number"),
        ({"nsfw": "yes"}, "expected true or false"),
        ({"models_to_load": []}, "names no model"),
        ({"page": "http://0.0.0.0:7861"}, "there is no page_password"),
        ({"page_password": "short"}, "expected a password of 8"),
        ({"nonsense": 1}, "no such key"),
        ({"horde_url": "https://evil.example"}, "in the file itself alone"),
        ({"api_key": "with a space"}, "expected the key of your account"),
        ({"blacklist": [["a"]]}, "changes: expected"),
        ({"blacklist": ["a\nmax_power: 3\n"] * 300}, "expected a list of at most 200"),
    ],
)
def test_what_does_not_check_changes_nothing(page: OpenPage, changes: dict[str, object], told: str):
    before = page.watched.config_file.read_bytes()
    code, answer = save(page, max_batch=2, **changes)
    assert code == 400
    assert told in "\n".join(answer["problems"])
    assert page.watched.config_file.read_bytes() == before


def test_no_key_is_changed_that_says_where_the_api_key_goes(page: OpenPage):
    for key in IN_THE_FILE:
        assert save(page, **{key: "https://evil.example"})[0] == 400


def test_of_two_browsers_the_second_does_not_undo_the_first(page: OpenPage):
    version = shown(page)["version"]
    assert save(page, version, max_power=16)[0] == 200
    code, told = save(page, version, max_batch=2)
    assert (code, "has changed meanwhile" in told["problems"][0]) == (409, True)
    assert load_config(page.watched.config_file).max_power == 16


def test_a_password_counts_at_once_and_only_its_hash_is_kept(page: OpenPage):
    assert save(page, page_password="correct horse") == (
        200,
        {"now": ["page_password"], "next job": [], "restart": []},
    )
    kept = load_config(page.watched.config_file).page_password
    assert kept
    assert fits("correct horse", kept.get_secret_value())
    assert page.get("/api/settings").status_code == 401
    assert page.post("/login", {"password": "correct horse"}).status_code == 200


def test_what_the_environment_sets_is_said(page: OpenPage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DREAMER_MAX_POWER", "4")
    row = next(row for row in shown(page)["keys"] if row["key"] == "max_power")
    assert (row["value"], row["variable"]) == (4, "DREAMER_MAX_POWER")
    assert "DREAMER_MAX_POWER is set" in save(page, max_power=16)[1]["problems"][0]


def test_a_restart_is_refused_while_the_file_could_not_be_used(page: OpenPage):
    text = page.watched.config_file.read_text("utf-8")
    page.watched.config_file.write_text(f"{text}max_batch: many\n", "utf-8")
    reply = page.post("/api/order", {"order": "restart"})
    assert (reply.status_code, "max_batch: 'many'" in reply.text) == (400, True)
    assert page.watched.orders.given() is None


def test_an_order_says_until_when(page: OpenPage):
    orders = page.watched.orders
    for until in (-1, 0, 1e300, 5.0, "soon"):
        assert page.post("/api/order", {"order": "pause", "until": until}).status_code == 400
    assert orders.given() is None
    assert page.post("/api/order", {"order": "pause"}).status_code == 200
    given = orders.given()
    assert given
    assert (given.order, given.until) == ("pause", None)


@pytest.mark.parametrize("hours", ["x", "1", "0", "-5", "99999999999999999999"])
def test_history_of_any_length_is_asked_for(page: OpenPage, hours: str):
    assert page.get(f"/api/history?hours={hours}").status_code == (400 if hours == "x" else 200)

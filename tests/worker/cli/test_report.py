"""What an owner gives to those who help: useful, and nothing in it that is theirs alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.support.owner import Home
from worker.cli.exit_codes import ExitCode
from worker.cli.scrubbing import Scrubber

SECRETS = (
    "k3y-of-the-owner-0123456789",
    "civitoken4711",
    "My Rig In The Attic",
    "Jane Doe#4711",
    "friend#99",
    "hunter2secret",
    "forbiddenword",
    "a naked emperor on a horse",
    "203.0.113.77",
    "2001:db8::1:2:3",
    "jane@example.org",
    "horde.example.org",
    "bucket/picture?X-Amz-Signature",
    "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "misspelled-secret",
)
CONFIG = """
api_key: k3y-of-the-owner-0123456789
civitai_api_token: civitoken4711
dreamer_name: My Rig In The Attic
worker_name: My Rig In The Attic
models_to_load: [demo]
priority_usernames: ["Jane Doe#4711", "friend#99"]
censorlist: [forbiddenword]
blacklist: [forbiddenword]
horde_url: http://127.0.0.1:9
api_kye: misspelled-secret
max_power: 32
"""
LINES = (
    "serving for Jane Doe#4711 at https://horde.example.org",
    "upload to https://bucket/picture?X-Amz-Signature=1 failed with civitoken4711",
    "job 3fa85f64-5717-4562-b3fc-2c963f66afa6 faulted: it said 'a naked emperor on a horse'",
    "prompt: a naked emperor on a horse",
    "203.0.113.77 and [2001:db8::1:2:3] and jane@example.org do not answer",
    "offering demo as 'My Rig In The Attic' with k3y-of-the-owner-0123456789 hunter2secret 1",
    "engine ready on cpu",
)


def test_a_report_helps_and_holds_no_secret(home: Home, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DREAMER_CIVITAI_API_TOKEN", "hunter2secret")
    home.write(CONFIG)
    logs = home.folder / "logs"
    logs.mkdir()
    stamp = "2026-12-01 03:00:00,000 INFO    worker: "
    plain = [f"{stamp}{line}" for line in LINES]
    as_json = [json.dumps({"time": "2026-12-01T03:00:00", "message": line}) for line in LINES]
    (logs / "dreamer.log").write_text("\n".join((*plain, *as_json)), "utf-8")
    (logs / "engine.log").write_text("a naked emperor on a horse\n", "utf-8")
    code, output = home.run("report", "--output", str(home.folder / "it.zip"))
    assert code == ExitCode.OK, output
    held = _texts(home.folder / "it.zip")
    assert list(held) == [
        "versions.txt",
        "check.txt",
        "configuration.yaml",
        "logs/dreamer.log",
        "logs/engine.log",
    ]
    for name, text in held.items():
        assert [each for each in SECRETS if each.lower() in text.lower()] == [], name
        assert output.index(name) < output.index("was written")
    assert "max_power: 32" in held["configuration.yaml"]
    assert held["logs/dreamer.log"].count("engine ready on cpu") == 2
    assert "python 3" in held["versions.txt"]
    assert "misspelled" not in output


def test_words_are_left_out_whatever_their_letter_case(tmp_path: Path):
    scrubber = Scrubber.of({"dreamer_name": "Attic (1)"}, tmp_path)
    assert scrubber.text(f"ATTIC (1) in {tmp_path}/logs") == "(left out) in (home)/logs"


def _texts(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}

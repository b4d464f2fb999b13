"""New values in a bridgeData.yaml, and all else as its owner has written it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from worker.config import load_config
from worker.config_edit import change_settings, edited
from worker.errors import ConfigError

FILE = """\
# mine
api_key: "a1b2c3d4e5f6g7h8i9j0kk"   # secret
dreamer_name: 'Tünes machine'
models_to_load:
  - "Deliberate"
  - Dreamshaper  # too large
  # the next one is the best
  - top 2

max_power: 8 # was 32
max_batch:
vram_to_leave_free: "80%"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bridgeData.yaml"
    path.write_text(FILE, "utf-8")
    path.chmod(0o600)
    return path


def test_values_are_replaced_and_comments_stay(config: Path):
    changes = {"max_power": 32, "max_batch": 2, "queue_size": 0, "vram_to_leave_free": "640 MiB"}
    backup = change_settings(config, changes)
    assert (
        config.read_text("utf-8")
        == FILE.replace("max_power: 8 #", "max_power: 32 #")
        .replace("max_batch:\n", "max_batch: 2\n")
        .replace('"80%"', '"640 MiB"')
        + "queue_size: 0\n"
    )
    assert backup.read_text("utf-8") == FILE
    assert load_config(config).max_power == 32


def test_an_entry_of_a_list_goes_with_its_line(config: Path):
    change_settings(config, {"models_to_load": ("Deliberate", "top 2")})
    assert config.read_text("utf-8") == FILE.replace("  - Dreamshaper  # too large\n", "")


def test_both_files_are_for_their_owner_alone_and_no_backup_is_lost(config: Path):
    first = change_settings(config, {"max_power": 18})
    second = change_settings(config, {"max_power": 32})
    assert (first.name, second.name) == ("bridgeData.yaml.backup-1", "bridgeData.yaml.backup-2")
    for path in (config, first, second):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {path.name for path in config.parent.iterdir()} == {config.name, first.name, second.name}


def test_a_value_that_the_worker_would_refuse_changes_nothing(config: Path):
    with pytest.raises(ConfigError, match="max_power"):
        change_settings(config, {"max_power": 4000})
    assert config.read_text("utf-8") == FILE
    assert list(config.parent.iterdir()) == [config]


@pytest.mark.parametrize("key", ["max_power", "max_batch"])
def test_a_value_that_two_keys_share_is_left_to_the_owner(config: Path, key: str):
    text = FILE.replace("power: 8", "power: &eight 8").replace("batch:", "batch: *eight")
    config.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=f"write there yourself\n{key}: 2"):
        change_settings(config, {key: 2})
    assert config.read_text("utf-8") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_power: 8", "max_power: 32"),
        ("nsfw: true", "nsfw: true\nmax_power: 32\n"),
        ("nsfw: true\r\n", "nsfw: true\r\nmax_power: 32\r\n"),
        ("\ufeffmax_power: 8\r\n", "\ufeffmax_power: 32\r\n"),
        ("max_power:\nnsfw: true\n", "max_power: 32\nnsfw: true\n"),
    ],
)
def test_any_way_to_write_a_file_is_kept(text: str, expected: str):
    assert edited(text, {"max_power": 32}) == expected


def test_an_old_name_of_a_key_keeps_its_name():
    text = "image_models_to_load: [one model, another]\n"
    changed = edited(text, {"models_to_load": ("one model",)})
    assert changed == 'image_models_to_load: ["one model"]\n'

"""New values in a bridgeData.yaml, and all else as its owner has written it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from worker.config.config import load_config
from worker.config.editing import change_settings, edited, try_change
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


LISTS = {
    "Deliberate, Dreamshaper, top 2, Flux": '  - top 2\n  - "Flux"\n',
    "Dreamshaper, Flux, Anything": '  - "Flux"\n  - "Anything"\n',
    "top 2, Deliberate": ' ["top 2", "Deliberate"]\n',
    "Flux": '\n  - "Flux"\n',
}


@pytest.mark.parametrize("wanted", LISTS)
def test_a_list_grows_by_lines_and_is_written_anew_in_another_order(config: Path, wanted: str):
    names = tuple(wanted.split(", "))
    change_settings(config, {"models_to_load": names})
    assert load_config(config).models_to_load == names
    assert LISTS[wanted] in config.read_text("utf-8")
    assert "# was 32" in config.read_text("utf-8")


def test_the_last_line_of_a_file_can_get_another_entry(config: Path):
    config.write_text("api_key: k1\ndreamer_name: mine\nmodels_to_load:\n- one", "utf-8")
    change_settings(config, {"models_to_load": ("one", "two", "top 2")})
    assert load_config(config).models_to_load == ("one", "two", "top 2")


def test_a_key_can_be_left_out_again(config: Path):
    change_settings(config, {"max_power": None, "safety": None})
    assert (load_config(config).max_power, load_config(config).safety) == (8, None)
    assert "max_power: null # was 32\n" in config.read_text("utf-8")


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
    told = f"{key} can't be changed without touching other keys"
    with pytest.raises(ConfigError, match=told):
        try_change(config, {key: 2})
    with pytest.raises(ConfigError, match=told):
        change_settings(config, {key: 2})
    assert config.read_text("utf-8") == text


def test_a_change_can_be_tried(config: Path):
    try_change(config, {"max_power": 32, "queue_size": 0})
    with pytest.raises(ConfigError, match="max_power"):
        try_change(config, {"max_power": 4000})
    assert config.read_text("utf-8") == FILE
    assert list(config.parent.iterdir()) == [config]


OTHER_STYLES = {
    "braces": "{api_key: k1, dreamer_name: mine, models_to_load: [some model],  # all of it\n}\n",
    "indented": "  api_key: k1\n  dreamer_name: mine\n  models_to_load: [some model]\n  # end\n",
    "ended": "---\napi_key: k1\ndreamer_name: mine\nmodels_to_load: [some model]\n# end\n...\n",
    "folded": "api_key: k1\nvram_to_leave_free: >\n  80%\n\n# next\ndreamer_name: mine\n"
    "models_to_load:\n  - some model\n",
    "merged": "<<: {api_key: k1, max_power: 2}\ndreamer_name: mine\nmodels_to_load: [some model]\n",
    "empty": "api_key: k1\ndreamer_name: mine\nmodels_to_load: [some model]\nmax_power:",
}


@pytest.mark.parametrize("style", OTHER_STYLES)
def test_yaml_that_is_written_otherwise_can_be_changed_too(config: Path, style: str):
    text = OTHER_STYLES[style]
    config.write_text(text, "utf-8")
    change_settings(config, {"max_power": 32, "vram_to_leave_free": "640 MiB"})
    changed = load_config(config)
    assert (changed.max_power, changed.vram_to_leave_free.size_bytes) == (32, 640 << 20)
    assert changed.models_to_load == ("some model",)
    for comment in re.findall("# .*", text):
        assert comment in config.read_text("utf-8")


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


def test_of_an_old_and_a_new_name_the_one_that_counts_is_changed():
    old = "image_models_to_load: [one model]\n"
    text = f"{old}models_to_load: [one model, another]\n"
    assert (
        edited(text, {"models_to_load": ("one model",)}) == f'{old}models_to_load: ["one model"]\n'
    )

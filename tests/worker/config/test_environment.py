from __future__ import annotations

from pathlib import Path

import pytest

from worker.config.config import load_config, models_place
from worker.config.environment import MOST_BYTES, VARIABLES
from worker.config.keys import EXPECTS
from worker.errors import ConfigError

FILE = 'api_key: "abcdefghijklmnopqrstuv"\ndreamer_name: a worker\nmodels_to_load: [Deliberate]\n'


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "bridgeData.yaml"
    path.write_text(FILE)
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    return raised.value.problems


def test_each_key_has_a_variable_of_its_own():
    assert set(VARIABLES.values()) == set(EXPECTS)
    assert len(VARIABLES) == len(EXPECTS)


def test_the_environment_wins_over_the_file_and_says_so(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DREAMER_NAME", "on")
    monkeypatch.setenv("DREAMER_MAX_POWER", "16")
    monkeypatch.setenv("DREAMER_MODELS_TO_LOAD", "[top 2, Deliberate]")
    monkeypatch.setenv("DREAMER_VRAM_TO_LEAVE_FREE", "20%")
    monkeypatch.setenv("DREAMER_NSFW", "false")
    config = load_config(config_file)
    assert config.dreamer_name == "on"
    assert (config.max_power, config.nsfw) == (16, False)
    assert config.models_to_load == ("top 2", "Deliberate")
    assert [note for note in config.notes if "is set" in note] == [
        "dreamer_name: DREAMER_NAME is set, and replaces what the file says",
        "models_to_load: DREAMER_MODELS_TO_LOAD is set, and replaces what the file says",
    ]


def test_an_empty_variable_counts_as_none(config_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DREAMER_NAME", "")
    assert load_config(config_file).dreamer_name == "a worker"


def test_the_environment_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secret = tmp_path / "key"
    secret.write_text("1234567890123456789012\n")
    monkeypatch.setenv("DREAMER_API_KEY_FILE", str(secret))
    monkeypatch.setenv("DREAMER_NAME", "a worker")
    monkeypatch.setenv("DREAMER_MODELS_TO_LOAD", "[Deliberate]")
    config = load_config(tmp_path / "there is none.yaml")
    assert config.api_key.get_secret_value() == "1234567890123456789012"
    monkeypatch.setenv("DREAMER_CACHE_HOME", "/srv/horde")
    assert models_place(tmp_path / "none.yaml").cache_home == Path("/srv/horde")


def test_it_mends_what_is_wrong_in_the_file(config_file: Path, monkeypatch: pytest.MonkeyPatch):
    config_file.write_text(FILE.replace('"abcdefghijklmnopqrstuv"', "0000000000"))
    assert problems(config_file)
    monkeypatch.setenv("DREAMER_API_KEY", "abcdefghijklmnopqrstuv")
    assert load_config(config_file).dreamer_name == "a worker"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("DREAMER_MAX_POWER", "lots", "DREAMER_MAX_POWER: 'lots'; expected a whole number"),
        ("DREAMER_MAX_POWER", "[1", "DREAMER_MAX_POWER: broken YAML; expected a whole number"),
        (
            "DREAMER_MAX_POWR",
            "1",
            "sets no key of bridgeData.yaml; did you mean DREAMER_MAX_POWER?",
        ),
        ("DREAMER_DREAMER_NAME", "x", "did you mean DREAMER_NAME?"),
        ("DREAMER_API_KEY", "a key", "DREAMER_API_KEY: what is written there is none"),
        ("DREAMER_API_KEY", "0000000000", "DREAMER_API_KEY: still the template's '0000000000'"),
        ("DREAMER_API_KEY_FILE", "/nowhere/key", "/nowhere/key can't be read: No such file"),
        ("DREAMER_NAME", "a\udcffb", "DREAMER_NAME: "),
    ],
)
def test_what_can_not_be_used_is_one_line_that_names_the_variable(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, told: str
):
    monkeypatch.setenv(name, text)
    (problem,) = problems(config_file)
    assert told in problem
    assert "\n" not in problem


def test_a_secret_in_two_places_or_of_another_kind_is_refused(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret = tmp_path / "key"
    secret.write_bytes(b"\xff\xfe")
    monkeypatch.setenv("DREAMER_API_KEY_FILE", str(secret))
    assert problems(config_file) == (
        f"DREAMER_API_KEY_FILE: {secret} can't be read: it is no UTF-8 text",
    )
    secret.write_bytes(b"x" * (MOST_BYTES + 1))
    assert "more than 64 KiB" in problems(config_file)[0]
    monkeypatch.setenv("DREAMER_API_KEY", "abcdefghijklmnopqrstuv")
    assert "set one of them" in problems(config_file)[0]

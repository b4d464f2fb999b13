"""Which torch is chosen, for cards that a stand-in for `nvidia-smi` names."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hordelib.setup import packages, torch_builds
from hordelib.setup.torch_builds import AUTO, BUILDS, NEWEST, Card, cards, chosen, version

PROJECT = Path(__file__).parents[3]
OLDEST = ">=2.5,<2.8"
GTX_1080 = "NVIDIA GeForce GTX 1080, 6.1, 550.90.07"
RTX_3060_OLD_DRIVER = "NVIDIA GeForce RTX 3060, 8.6, 550.90.07"
RTX_4090 = "NVIDIA GeForce RTX 4090, 8.9, 580.65.06"
RTX_5090 = "NVIDIA GeForce RTX 5090, 12.0, 575.51"
V100 = "Tesla V100-SXM2-16GB, 7.0, 580.65.06"
K80 = "Tesla K80, 3.7, 470.82.01"
MAXWELL_OLD_DRIVER = "NVIDIA GeForce GTX 970, [N/A], 470.82.01"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH for an `nvidia-smi`."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def name_cards(driver: Path, *lines: str, exit_code: int = 0) -> None:
    program = driver / "nvidia-smi"
    told = "\n".join(lines)
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{told}\nEND\nexit {exit_code}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("lines", "bound", "words"),
    [
        ([GTX_1080], OLDEST, "torch 2.7 with CUDA 12.4 to 12.6 is the newest for"),
        ([RTX_3060_OLD_DRIVER], ">=2.8,<2.11", "driver 580 or newer would allow torch 2.14"),
        ([RTX_4090], ">=2.11,<2.15", "GeForce RTX 4090 (8.9) with driver 580.65.06"),
        ([RTX_5090], ">=2.8,<2.11", "torch 2.10 with CUDA 12.8"),
        ([V100, V100], ">=2.8,<2.11", "for Tesla V100-SXM2-16GB (7.0) with"),
        ([RTX_4090, GTX_1080], OLDEST, "RTX 4090 (8.9), NVIDIA GeForce GTX 1080 (6.1)"),
        (
            [RTX_5090, GTX_1080],
            ">=2.8,<2.11",
            "it has no kernels for NVIDIA GeForce GTX 1080 (6.1)",
        ),
        ([K80], "", "has kernels for Tesla K80 (3.7)"),
        ([MAXWELL_OLD_DRIVER], OLDEST, "update it to 525.60 or newer"),
        (["No devices were found"], "", "no NVIDIA driver names a card"),
        (["", "a, card", "x, y, z", ", 8.6, 550.1"], "", "no NVIDIA driver names a card"),
    ],
)
def test_the_newest_torch_that_cards_and_driver_can_run_is_chosen(
    driver: Path, lines: list[str], bound: str, words: str
):
    name_cards(driver, *lines)
    choice = chosen(AUTO, cards())
    assert choice.bound == bound
    assert words in choice.reason


def test_a_driver_that_answers_with_an_error_names_no_card(driver: Path):
    name_cards(driver, RTX_4090, exit_code=9)
    assert cards() == []


@pytest.mark.parametrize(
    ("asked", "bound"),
    [(NEWEST, ">=2.11,<2.15"), ("2.7", "==2.7.*"), ("2.7.1", "==2.7.1"), ("2.14", "==2.14.*")],
)
def test_a_torch_that_was_asked_for_is_taken_whatever_the_card(
    driver: Path, asked: str, bound: str
):
    name_cards(driver, GTX_1080)
    assert chosen(asked, cards()).bound == bound


@pytest.mark.parametrize("asked", ["2.4", "2.15", "3.0", "2", "2.7.1.1", "cu126", "", "2.7;evil"])
def test_a_torch_that_there_is_not_is_refused_with_those_that_there_are(asked: str):
    with pytest.raises(ValueError, match=r"expected auto, newest, or a release of 2\.5 to 2\.14"):
        chosen(asked, [])


def test_the_table_has_each_release_of_the_allowed_range_once():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = next(line for line in project["dependencies"] if line.startswith("torch>="))
    least, below = (version(part.lstrip("<>=")) for part in asked.removeprefix("torch").split(","))
    rows = sorted((build.first, build.last) for build in BUILDS)
    assert rows[0][0] == least
    assert [(first[0], first[1] - 1) for first, _ in rows[1:]] == [last for _, last in rows[:-1]]
    assert (rows[-1][1][0], rows[-1][1][1] + 1) == below


@pytest.mark.parametrize(
    ("capability", "served"),
    [((5, 2), 1), ((6, 1), 1), ((7, 0), 2), ((7, 5), 3), ((8, 9), 3), ((10, 3), 2), ((12, 1), 2)],
)
def test_a_kernel_runs_on_its_own_generation_from_its_minor_one_up(
    capability: tuple[int, int], served: int
):
    assert sum(build.serves(Card("a card", capability, "580.1")) for build in BUILDS) == served


def test_what_was_chosen_stays_until_another_is_asked_for(tmp_path: Path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["torch>=2.5"]\n')
    stamp = packages.Stamp("x", (), "<2.8")
    stamp.write(tmp_path)
    assert packages.Stamp.read(tmp_path) == stamp
    assert packages.requirements(pyproject, (), stamp.torch) == ["torch<2.8", "torch>=2.5"]
    assert packages.requirements(pyproject, ()) == ["torch>=2.5"]


def test_it_runs_on_a_bare_python(driver: Path):
    name_cards(driver, GTX_1080)
    script = [sys.executable, "-I", "-S", torch_builds.__file__]
    shown = subprocess.run(script, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[0] == OLDEST
    refused = subprocess.run(
        [*script, "--torch", "1.0"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --torch 1.0: expected")

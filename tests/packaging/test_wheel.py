"""The sdist and the wheel, installed and used outside of the clone."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.demo_pictures import assert_shows_what_it_promised
from tests.support.owner import PROJECT, runtime
from tests.support.text_servers import KoboldServer

EPOCH = "1767225600"
ROOMS = ("worker", "hordelib", "benchmarks", "comfy_workflows", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "LICENSE", "bridgeData.template.yaml")
BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)


def build(kind: str, folder: Path, into: Path) -> Path:
    """Run the build backend in `folder`, as `pip wheel` and `python -m build` do."""
    into.mkdir()
    built = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", into],
        cwd=folder,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-2000:]
    (archive,) = into.iterdir()
    return archive


def copied_project(into: Path) -> Path:
    """So that nothing is built into the clone itself."""
    for name in ROOMS:
        shutil.copytree(PROJECT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(PROJECT / name, into)
    return into


@functools.cache
def archives(folder: Path) -> tuple[Path, Path, Path]:
    """The sdist, and two wheels that were built of it in different places."""
    sdist = build("sdist", copied_project(folder / "clone"), folder / "sdist")
    wheels: list[Path] = []
    for place in ("here", "there"):
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / place, filter="data")
        (unpacked,) = (folder / place).iterdir()
        wheels.append(build("wheel", unpacked, folder / f"wheel {place}"))
    return sdist, wheels[0], wheels[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return archives(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what it needs comes from the runtime of these tests."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [environment / "bin" / "python", "-I", "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", built[1]], check=True)
    return environment


def outside(folder: Path) -> dict[str, str]:
    """The environment of somebody who has never seen the clone; ComfyUI is installed already."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    return {**own, "DREAMER_RUNTIME": runtime(), "HOME": str(folder)}


def test_the_same_sdist_builds_the_same_wheel_bit_for_bit(built: tuple[Path, Path, Path]):
    here, there = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in built[1:])
    assert here == there


def test_the_wheel_has_all_that_it_needs_and_no_tests(built: tuple[Path, Path, Path]):
    names = zipfile.ZipFile(built[1]).namelist()
    sources = {
        str(path.relative_to(PROJECT))
        for room in ROOMS[:3]
        for path in (PROJECT / room).rglob("*.py")
    }
    assert sources <= set(names)
    assert any(name.endswith("share/dreamer/bridgeData.template.yaml") for name in names)
    assert any(name.endswith(".safetensors") for name in names)
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".pyc")]


@pytest.mark.timeout(700)
def test_the_demo_runs_in_a_folder_with_nothing_but_the_wheel(installed: Path, tmp_path: Path):
    home = tmp_path / "an empty folder"
    home.mkdir()
    with KoboldServer() as server:
        (home / "bridgeData.yaml").write_text(
            "api_key: a-key-of-the-horde-000\nscribe_only: true\nscribe_name: a scribe\n"
            f"text_backend: {server.url}\n"
        )
        demo = subprocess.run(
            [installed / "bin" / "dreamer", "demo", "--all"],
            cwd=home,
            env=outside(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
    assert demo.returncode == 0, demo.stdout[-2000:] + demo.stderr[-2000:]
    page = home / "demo-output" / "index.html"
    assert demo.stdout.rstrip().splitlines()[-1] == str(page)
    assert_shows_what_it_promised(page)
    assert str(PROJECT) not in demo.stdout


def test_a_program_makes_a_picture_with_the_library(installed: Path, tmp_path: Path):
    program = (
        "import hordelib; from hordelib import Engine, GenerationParams, demo_checkpoint\n"
        f"assert {str(installed)!r} in hordelib.__file__\n"
        "with Engine() as engine:\n"
        "    params = GenerationParams(prompt='a red circle', width=64, height=64)\n"
        "    engine.generate(params, demo_checkpoint('models')).images[0].save('circle.png')\n"
    )
    made = subprocess.run(
        [installed / "bin" / "python", "-c", program],
        cwd=tmp_path,
        env=outside(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert (tmp_path / "circle.png").read_bytes().startswith(b"\x89PNG")


def test_the_set_up_writes_a_configuration_from_the_template(installed: Path, tmp_path: Path):
    key = ("--api-key", "a-key-of-a-test", "--name", "tester")
    away = ("--horde-url", "http://127.0.0.1:9", "--model-reference", "none")
    rest = ("--yes", "--models", "Mine")
    begun = subprocess.run(
        [installed / "bin" / "dreamer", "--home", tmp_path, "setup", *key, *away, *rest],
        env=outside(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert begun.returncode == 0, begun.stderr
    written = (tmp_path / "bridgeData.yaml").read_text("utf-8")
    template = (PROJECT / "bridgeData.template.yaml").read_text("utf-8")
    assert template.splitlines()[0] in written
    assert 'api_key: "a-key-of-a-test"' in written


def test_uninstalling_leaves_nothing(built: tuple[Path, Path, Path], tmp_path: Path):
    venv.create(tmp_path, with_pip=True)
    pip = [tmp_path / "bin" / "python", "-I", "-m", "pip", "--disable-pip-version-check", "-q"]

    def files() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    subprocess.run([*pip, "install", "--no-deps", "--no-index", built[1]], check=True)
    assert files() > before
    subprocess.run([*pip, "uninstall", "-y", "dreamer-worker"], check=True)
    assert {path for path in files() - before if not path.is_dir()} == set()

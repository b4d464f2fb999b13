"""The set-up as owners and scripts meet it: a terminal, options, and the file that is written."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.owner import PROJECT, Home
from tests.support.reference_server import ReferenceServer, reference_server
from tests.support.sandbox_client import MODELS, NEWBIE_KEY, WORKER_KEY, Api, offer
from worker.__main__ import make_parser
from worker.cli.commands import exit_code_of
from worker.cli.exit_codes import ExitCode
from worker.cli.setup_command import run_setup
from worker.config.config import load_config
from worker.config.document import CONFIG_FILE
from worker.sandbox import Sandbox

TEMPLATE = (PROJECT / "bridgeData.template.yaml").read_text("utf-8")
# A line that is typed before this was asked would be thrown away, as for every password.
KEY = "not shown while you type or paste it: "
ACCOUNT = ("--name", "tester", "--api-key", WORKER_KEY)


@pytest.fixture(scope="module")
def horde() -> Generator[Sandbox]:
    with Sandbox(MODELS, limits={}) as horde, Api(horde.url, WORKER_KEY) as owner:
        assert owner.call("POST", "generate/pop", offer(name="taken")).status_code == 200
        yield horde


@pytest.fixture(scope="module")
def site() -> Generator[ReferenceServer]:
    """A list with a model for each size of machine."""
    with reference_server() as site:
        site.offer_model("Deliberate", size_on_disk_bytes=2_134_000_000)
        site.offer_model("Vast", baseline="flux_1", size_on_disk_bytes=10**15)
        yield site


@pytest.fixture
def owner(tmp_path: Path) -> Home:
    return Home(tmp_path)


SetUp = Callable[..., tuple[int, str]]


@pytest.fixture
def set_up(owner: Home, capsys: pytest.CaptureFixture[str]) -> SetUp:
    """The command in this process; its exit code and what it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        options = make_parser().parse_args(["--home", str(owner.folder), "setup", *arguments])
        code = exit_code_of(lambda: run_setup(owner.folder / CONFIG_FILE, options))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@contextmanager
def at_a_terminal(home: Home, *arguments: str) -> Generator[Terminal]:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "worker", "--home", str(home.folder), "setup", *arguments]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm", "COLUMNS": "120"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,  # without a terminal of its own, getpass asks this one
    ) as process:
        os.close(follower)
        try:
            yield Terminal(leader, process)
        finally:
            process.kill()
            os.close(leader)


class Terminal:
    def __init__(self, leader: int, process: subprocess.Popen[bytes]):
        self._leader, self._process = leader, process
        self.shown = ""

    def answer(self, question: str, line: str) -> str:
        """Wait for the question, then type a line; what was shown before it."""
        seen = self._until(question)
        os.write(self._leader, f"{line}\n".encode())
        return seen

    def end(self) -> int:
        self._until(None)
        return self._process.wait()

    def _until(self, question: str | None) -> str:
        before, self.shown = self.shown, ""
        while question is None or question not in self.shown:
            assert select.select([self._leader], [], [], 120)[0], f"it says nothing: {self.shown}"
            try:
                piece = os.read(self._leader, 4096)
            except OSError:  # Linux says so when nobody has the other end any more
                piece = b""
            if not piece:
                assert question is None, f"it ended without {question!r}: {before}{self.shown}"
                break
            self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", piece.decode())
        return self.shown


def test_an_owner_is_asked_until_the_horde_knows_key_and_name(
    owner: Home, horde: Sandbox, site: ReferenceServer
):
    where = ("--horde-url", horde.url, "--model-reference", f"{site.url}/reference")
    with at_a_terminal(owner, *where) as terminal:
        terminal.answer(KEY, "wrong-key-wrong-key-00")
        terminal.answer("Name: ", "x" * 101)
        assert "1 to 100 characters" in terminal.answer("Name: ", "taken")
        assert "No user has this API key" in terminal.answer(KEY, WORKER_KEY)
        assert "'taken'" in terminal.answer("Number [1]: ", "4")
        terminal.answer("Number [1]: ", "2")
        terminal.answer("[Y/n]", "n")
        seen = terminal.answer("Models, by number or name", "Delibrate")
        assert "2.1 GB" in seen
        assert "kudos (512x512, 30 steps)" in seen
        assert "Vast" not in seen
        assert "did you mean 'Deliberate'?" in terminal.answer("Models, by number or name", "")
        assert terminal.end() == ExitCode.OK, terminal.shown
        assert "run: serves the horde" in terminal.shown
    file = owner.folder / "bridgeData.yaml"
    text, config = file.read_text("utf-8"), load_config(file)
    assert config.api_key.get_secret_value() == WORKER_KEY
    assert (config.dreamer_name, config.nsfw, config.user_active) == ("taken", False, 10)
    assert config.models_to_load == ("Deliberate",)
    comments = [line for line in TEMPLATE.splitlines() if line.startswith("#")]
    assert [line for line in comments if line not in text.splitlines()] == []
    assert file.stat().st_mode & 0o077 == 0


def test_a_script_answers_by_options(owner: Home, horde: Sandbox, site: ReferenceServer):
    key_file = owner.folder / "key"
    key_file.write_text(f"{WORKER_KEY}\n", "utf-8")
    where = ("--horde-url", horde.url, "--model-reference", f"{site.url}/reference")
    options = ("--api-key-file", str(key_file), "--name", "tester", "--for", "nights", "--yes")
    code, output = owner.run("setup", *options, *where)
    assert code == ExitCode.OK, output
    assert "models: Deliberate" in output
    assert WORKER_KEY not in output
    config = load_config(owner.folder / "bridgeData.yaml")
    assert len(config.serve_hours) == 1
    assert config.nsfw


def test_a_file_is_changed_only_where_that_was_said(owner: Home, set_up: SetUp):
    away = ("--horde-url", "http://127.0.0.1:9")
    code, output = set_up(*ACCOUNT, *away, "--yes", "--models", "Mine")
    assert code == ExitCode.OK, output
    assert "key and name are not checked now" in output
    file = owner.folder / "bridgeData.yaml"
    before = f"{file.read_text('utf-8')}\n# mine\n"
    file.write_text(before, "utf-8")
    code, output = set_up("--for", "shared")
    assert (code, file.read_text("utf-8")) == (ExitCode.USAGE, before)
    assert "add --change" in output
    code, output = set_up("--for", "shared", "--change")
    assert code == ExitCode.OK, output
    config = load_config(file)
    assert (config.models_to_load, config.on_battery) == (("Mine",), True)
    assert "# mine" in file.read_text("utf-8")
    assert (owner.folder / "bridgeData.yaml.backup-1").read_text("utf-8") == before
    code, output = set_up("--for", "horde", "--change")
    assert code == ExitCode.OK, output
    assert not load_config(file).on_battery


@pytest.mark.parametrize(
    ("options", "expected", "told"),
    [
        (("--name", "tester"), ExitCode.USAGE, "add --api-key-file, --for, --nsfw, --models"),
        ((*ACCOUNT, "--yes", "--models", "x"), ExitCode.USAGE, "models_to_load[0]: 'x'; expected"),
        (("--api-key", "a b", "--name", "t", "--yes"), ExitCode.USAGE, "api_key: "),
        (("--api-key", "0000000000", "--name", "t", "--yes"), ExitCode.USAGE, "the template's"),
        (("--api-key-file", "/dev/null", "--name", "t", "--yes"), ExitCode.USAGE, "holds no key"),
        ((*ACCOUNT, "--yes", "--model-reference", "none"), ExitCode.USAGE, "add --models NAME"),
        (("--api-key", NEWBIE_KEY, "--name", "taken", "--yes"), ExitCode.OK, "whose it is"),
        (
            ("--api-key", "wrong-key-wrong-key-00", "--name", "tester", "--yes"),
            ExitCode.NOT_ALLOWED,
            "put the key of your account into api_key",
        ),
    ],
)
def test_what_can_not_be_used_is_one_line_and_no_file(
    owner: Home,
    set_up: SetUp,
    horde: Sandbox,
    options: tuple[str, ...],
    expected: ExitCode,
    told: str,
):
    more = () if "--models" in options or expected is not ExitCode.OK else ("--models", "Mine")
    code, output = set_up(*options, *more, "--horde-url", horde.url)
    assert code == expected, output
    assert told in output
    assert "Traceback" not in output
    assert (owner.folder / "bridgeData.yaml").exists() is (expected is ExitCode.OK)


def test_without_a_configuration_a_command_names_the_set_up(owner: Home):
    code, output = owner.run("models", "list")
    assert code == ExitCode.USAGE
    assert "no such file; run" in output
    assert "setup, which asks and writes it" in output

"""The command line as an owner meets it: real processes, their output and their exit codes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.owner import PROJECT, Home, assert_nothing_left, config, runtime, wait_for
from tests.support.sandbox_client import CLIENT_KEY, MODEL, NEWBIE_KEY, WORKER_KEY, Api, offer
from tests.support.small_disk import small_disk
from worker.cli.exit_codes import ExitCode
from worker.sandbox import Sandbox


def test_help_names_every_command():
    for arguments in (["--help"], *([command, "--help"] for command in COMMANDS)):
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = COMMANDS if arguments == ["--help"] else (f"dreamer {arguments[0]}",)
        assert all(command in done.stdout for command in wanted)


COMMANDS = (
    *("demo", "run", "check", "status", "pause", "resume", "drain", "report"),
    *("models", "fetch", "sandbox", "setup", "worker"),
)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_output_on_a_full_disk_changes_no_exit_code(home: Home):
    home.write("api_key: x\nqueue_size: many\n")
    with open("/dev/full", "wb", buffering=0) as full:
        command = [sys.executable, "-m", "worker", "--home", str(home.folder), "run"]
        env = {**os.environ, "PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": runtime()}
        code = subprocess.run(command, env=env, stdout=full, stderr=full, check=False).returncode
    assert code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("api_kay: x\n", "api_key"),
        ("max_power: [", "line"),
        ("\x00\x01", "bridgeData.yaml"),
        ("", "empty"),
        ("- a\n- b\n", "bridgeData.yaml"),
    ],
)
def test_garbage_in_the_configuration_is_named(home: Home, text: str, complaint: str):
    home.write(text)
    code, output = home.run("run")
    assert code == ExitCode.USAGE
    assert complaint in output
    assert "Traceback" not in output


def test_a_wrong_key_is_told_with_its_remedy(home: Home, horde: Sandbox):
    home.write(config(horde, key="wrong-key-wrong-key-00"))
    code, output = home.run("run")
    assert code == ExitCode.NOT_ALLOWED
    assert "Remedy: put the key of your account into api_key" in output
    assert "wrong-key-wrong-key-00" not in output


def test_a_taken_name_is_told_with_its_remedy(home: Home, horde: Sandbox):
    with Api(horde.url, WORKER_KEY) as owner:
        assert owner.call("POST", "generate/pop", offer(name="tester")).status_code == 200
    home.write(config(horde, key=NEWBIE_KEY))
    code, output = home.run("run")
    assert code == ExitCode.NOT_ALLOWED
    assert "choose another dreamer_name" in output


def test_an_unknown_model_is_told_with_the_folder(home: Home, horde: Sandbox):
    home.write(config(horde, model="Deliberate"))
    code, output = home.run("run")
    assert code == ExitCode.NO_MODEL
    assert "'Deliberate'" in output
    assert "compvis" in output


def test_a_broken_checkpoint_is_told_by_its_name(home: Home, horde: Sandbox, tmp_path: Path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    home.write(
        config(horde, more="models_to_skip: ['Dreamer Demo']\n")
        + "custom_models:\n  - name: Mine\n    baseline: stable diffusion 1\n"
        + f"    filepath: {tmp_path / 'bad.safetensors'}\n"
    )
    code, output = home.run("run")
    assert code == ExitCode.NO_MODEL
    assert "bad.safetensors" in output
    assert "fetch it again" in output


def test_a_file_that_lacks_most_of_its_model_is_refused_before_any_job(home: Home, horde: Sandbox):
    """Its header is that of a Stable Diffusion XL model, and most of it is missing."""
    unet = "model.diffusion_model."
    some = {
        f"{unet}input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
        f"{unet}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(640, 2048),
    }
    save_file(some, home.folder / "other.safetensors")
    home.write(
        config(horde, more="models_to_skip: ['Dreamer Demo']\n")
        + "custom_models:\n  - name: Demo XL\n    baseline: stable_diffusion_xl\n"
        + "    filepath: other.safetensors\n"
    )
    with Api(horde.url, CLIENT_KEY) as client:
        client.ask_id({"width": 64, "height": 64, "steps": 4}, models=["Demo XL"])
        code, output = home.run("run")
    assert code == ExitCode.NO_MODEL
    assert "other.safetensors" in output
    assert "fetch it again" in output
    assert horde.books().generations == ()


def test_a_lost_terminal_is_no_reason_to_stop(home: Home, horde: Sandbox):
    home.write(config(horde, more="stats_output_frequency: 1\n"))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.stdout.close()  # like `run | head -n 1`
        client.ask_id({"width": 64, "height": 64, "steps": 4})
        wait_for(lambda: horde.books().generations and horde.books().requests[0].done)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == ExitCode.OK
    assert_nothing_left(worker.pid)


def test_a_port_in_use_is_said_in_one_line(home: Home, horde: Sandbox):
    code, output = home.run("sandbox", "--port", horde.url.rpartition(":")[2])
    assert code == ExitCode.USAGE
    assert "Address already in use" in output
    assert len(output.splitlines()) == 1


def test_an_unreachable_horde_ends_the_first_run(home: Home):
    home.write(
        "horde_url: http://127.0.0.1:9\napi_key: some-key-some-key-0000\n"
        f"dreamer_name: tester\nmodels_to_load: ['{MODEL}']\n"
    )
    code, output = home.run("run")
    assert code == ExitCode.UNREACHABLE
    assert "127.0.0.1" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("choice", ["top 2", "Deliberate"])
def test_models_that_only_the_network_can_name_are_worth_another_try(home: Home, choice: str):
    """A system's service starts it again then, since the network may come late."""
    (home.folder / "models").unlink()
    home.write(
        "horde_url: http://127.0.0.1:9\nmodel_reference: http://127.0.0.1:9/list\n"
        f"api_key: some-key-some-key-0000\ndreamer_name: tester\nmodels_to_load: ['{choice}']\n"
    )
    code, output = home.run("run")
    assert code == ExitCode.UNREACHABLE, output
    assert "no model can be served yet: " in output.splitlines()[-1]


def test_check_passes_where_all_is_well_and_names_what_is_not(home: Home, horde: Sandbox):
    home.write(config(horde))
    code, output = home.run("check")
    assert (code, "FAILED" in output) == (ExitCode.OK, False), output
    for name in ("python", "torch", "device", "ComfyUI", "disk", "model files", "worker name"):
        assert re.search(rf"^ok +{name}", output, re.MULTILINE), output

    home.write(config(horde, key="wrong-key-wrong-key-00", model="Deliberate"))
    code, output = home.run("check")
    assert code == ExitCode.FAILED
    for name in ("model files", "api key"):
        assert re.search(rf"^FAILED +{name}.*\n +remedy: \w", output, re.MULTILINE), output


def test_run_serves_until_a_signal_and_then_ends_cleanly(home: Home, horde: Sandbox):
    home.write(config(horde))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        client.ask_id({"width": 64, "height": 64, "steps": 4})
        wait_for(lambda: horde.books().generations and horde.books().requests[0].done)
        worker.send_signal(signal.SIGTERM)
        output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    assert "images 1" in output
    assert_nothing_left(worker.pid)


def test_a_second_signal_ends_it_at_once(home: Home, horde: Sandbox):
    home.write(config(horde))
    with Api(horde.url, CLIENT_KEY) as client, home.start("run") as worker:
        client.ask_id({"width": 512, "height": 512, "steps": 40})
        wait_for(lambda: bool(horde.books().generations))
        worker.send_signal(signal.SIGINT)
        time.sleep(1)  # two at once would be one signal
        worker.send_signal(signal.SIGINT)
        worker.communicate(timeout=30)  # the job would take minutes
    assert worker.returncode == ExitCode.INTERRUPTED
    assert_nothing_left(worker.pid)


def test_the_demo_can_be_interrupted(home: Home):
    with home.start("demo") as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if "step" in line)
        os.killpg(demo.pid, signal.SIGINT)
        demo.communicate(timeout=120)
    assert demo.returncode == ExitCode.INTERRUPTED
    assert_nothing_left(demo.pid)


@pytest.mark.parametrize("command", ["setup", "run", "demo"])
def test_a_home_that_can_not_be_written_is_said_before_anything_is_asked(
    tmp_path: Path, command: str
):
    with small_disk(tmp_path / "disk", 100, "ro") as home:
        done = subprocess.run(
            [sys.executable, "-m", "worker", "--home", str(home), command],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": runtime()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == ExitCode.DISK, done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"dreamer: Read-only file system: {home}")
    assert told.endswith("; make it writable for you, or choose another folder")
    assert "browser" not in done.stdout


def test_a_full_disk_is_said_in_one_line(home: Home):
    """A limit on file sizes stands in for the disk's end: the demo model can't be written."""
    (home.folder / "models").unlink()
    demo = [sys.executable, "-m", "worker", "--home", str(home.folder), "demo"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1000; exec "$@"', "-", *demo],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "DREAMER_RUNTIME": runtime()},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == ExitCode.DISK, done.stderr
    assert "can't be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((home.folder / "models").rglob("*.partial"))

"""A real worker under all samples at once, beside good jobs: it delivers the good ones."""

from __future__ import annotations

import json
import os
import stat
from base64 import b64encode
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from tests.hordelib.job.test_source_images import WORK
from tests.support.hostile_horde import HostileHorde, Json, Spoil, hostile_horde
from tests.support.owner import Home, assert_nothing_left, wait_for
from tests.support.sandbox_client import CLIENT_KEY, MODEL, WORKER_KEY, Api
from tests.worker.net.test_strangers import EVIL, SIGNS
from worker.cli.exit_codes import ExitCode
from worker.sandbox import Sandbox, State

SMALL = {"width": 64, "height": 64, "steps": 4, "cfg_scale": 4.0, "sampler_name": "k_euler"}
BOMB = torch.zeros(13_643, 768, dtype=torch.half)  # the most vectors that 20 MiB hold
GOOD = 6  # jobs, in between the others


def with_source(data: bytes) -> Spoil:
    def spoil(popped: Json) -> None:
        popped["source_image"] = b64encode(data).decode()

    return spoil


def with_payload(**changes: object) -> Spoil:
    return lambda popped: popped["payload"].update(changes)


# Not more of them than may be faulted twice: sixteen faults silence a worker for an hour.
SAMPLES: dict[str, Spoil] = {
    "line": with_source(WORK["a line of 16 million pixels"][0]),
    "profiles": with_source(WORK["PNG profiles"][0]),
    "fields": with_source(WORK["TIFF fields"][0]),
    "digits": with_payload(width=10**4000),
    "braces": with_payload(prompt="{" * 1_000_000),
    "marks": with_payload(prompt="a" + "\u0301" * 80_000),
    "bomb": with_payload(prompt="a embedding:big " * 700),
    "nested": with_payload(loras=[{"name": "nested", "model": 1.0, "clip": 1.0}]),
    "texts": with_payload(sampler_name=EVIL, prompt=EVIL[:5000]),
    "twice": lambda popped: popped.update(
        ids=popped["ids"] * 2, r2_uploads=popped["r2_uploads"] * 2
    ),
    "secrets": lambda popped: popped.update(source_image="http://169.254.169.254/latest/meta-data"),
}
ANSWERS = [
    b'{"id": null, "skipped": [' + b"[]," * 10_000_000 + b"[]]}",
    json.dumps({"id": EVIL, "ids": [EVIL]}).encode(),
]
BESIDE = {
    "skipped": {EVIL: 1},
    "username": EVIL,
    "messages": [{"id": EVIL, "message": EVIL, "origin": EVIL, "expiry": EVIL}],
}


def nested_header() -> bytes:
    header = b'{"a": ' + b"[" * 3000 + b"]" * 3000 + b"}"
    return len(header).to_bytes(8, "little") + header


@pytest.fixture
def owner(tmp_path: Path, checkpoint: Path) -> Home:
    """Whose umask lets everybody write, and who has a LoRA and a textual inversion of strangers."""
    folder = tmp_path / "owner"
    checkpoints = folder / "models" / "compvis"
    checkpoints.mkdir(parents=True)
    (checkpoints / checkpoint.name).symlink_to(checkpoint)
    lora = folder / "models" / "lora" / "nested.safetensors"
    lora.parent.mkdir()
    lora.write_bytes(nested_header())
    (folder / "models" / "ti").mkdir()
    save_file({"emb_params": BOMB}, folder / "models" / "ti" / "big.safetensors")
    return Home(folder)


@pytest.fixture
def hostile(horde: Sandbox) -> Generator[HostileHorde]:
    with hostile_horde(horde.url, SAMPLES, list(ANSWERS), BESIDE) as hostile:
        yield hostile


def insist_on_no_key(worker: psutil.Process) -> None:
    """Neither in the arguments nor in the environment of the worker, or of what it started."""
    for process in (worker, *worker.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            assert WORKER_KEY not in " ".join(process.cmdline())
            assert WORKER_KEY not in str(process.environ())


def insist_on_closed(home: Path) -> None:
    for path in (home / "state", home / "logs"):
        for each in (path, *path.rglob("*")):
            assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each
    for each in home.rglob("*"):
        if each.is_file() and "models" not in each.parts:
            assert not each.stat().st_mode & 0o022, each


@pytest.mark.timeout(600)
def test_a_worker_under_all_samples_at_once_delivers_the_good_jobs(
    owner: Home, horde: Sandbox, hostile: HostileHorde
):
    owner.write(
        f"horde_url: {hostile.url}\napi_key: {WORKER_KEY}\ndreamer_name: tester\n"
        f"ram_to_leave_free: 256 MiB\nmodels_to_load: ['{MODEL}']\nallow_lora: true\n"
        "allow_img2img: true\n"
        "censorlist: [forbidden]\n"
    )
    before = os.umask(0)
    with Api(horde.url, CLIENT_KEY) as client, owner.start("run") as worker:
        os.umask(before)
        good: list[str] = []
        bad: dict[str, str] = {}
        for number, name in enumerate(SAMPLES):
            bad[name] = client.ask_id(SMALL, prompt=f"{name}: a circle", r2=True)
            if number < GOOD:
                good.append(client.ask_id(SMALL | {"seed": f"{number}"}))
        try:
            wait_for(lambda: all(horde.books().request(id).done for id in good))
            wait_for(lambda: set(hostile.spoilt) == set(SAMPLES))
            wait_for(lambda: all(ended(horde, id) for id in bad.values()))
            insist_on_no_key(psutil.Process(worker.pid))
        finally:
            worker.terminate()
            output, _ = worker.communicate(timeout=120)
    assert worker.returncode == ExitCode.OK, output
    for id in (*good, bad["bomb"]):
        assert [image.state for image in horde.books().of_request(id)] == [State.ok], output
    log = (owner.folder / "logs" / "dreamer.log").read_text("utf-8")
    for told in (output, log):
        assert not [sign for sign in SIGNS if sign not in "\n\r" and sign in told]
        assert "Traceback" not in told
        assert "bug of ours" not in told
        assert max(map(len, told.splitlines())) < 2000
    insist_on_closed(owner.folder)
    assert_nothing_left(worker.pid)


def ended(horde: Sandbox, request: str) -> bool:
    """Whether an image of it has a fate: one that is faulted is handed out again."""
    states = [image.state for image in horde.books().of_request(request)]
    return any(state is not State.processing for state in states)

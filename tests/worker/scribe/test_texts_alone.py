"""A worker of texts alone: checked, run by the program, and ended; no engine is started for it."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.sandbox_client import CLIENT_KEY, MODELS, WORKER_KEY, Api
from tests.support.text_servers import KoboldServer, told
from worker.cli.check import findings
from worker.cli.running_worker import status
from worker.cli.worker_command import run_worker_command
from worker.config.config import load_config
from worker.sandbox import Sandbox, State
from worker.service.orders import Orders
from worker.service.state_folder import STATE
from worker.setup.finding import Verdict

LONG_SECONDS = 200.0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_texts_alone_are_served_by_the_program(tmp_path: Path) -> None:
    with Sandbox(MODELS) as sandbox, KoboldServer() as server, Api(sandbox.url, CLIENT_KEY) as api:
        config = {
            "api_key": WORKER_KEY,
            "scribe_name": "a scribe",
            "scribe_only": True,
            "text_backend": server.url,
            "horde_url": sandbox.url,
            "page": "",
        }
        file = tmp_path / "bridgeData.yaml"
        file.write_text(json.dumps(config))
        found = {each.name: each for each in findings(tmp_path, file)}
        assert all(each.verdict is not Verdict.failed for each in found.values()), found
        assert "koboldcpp (kobold): koboldcpp/LLaMA2-13B-Tiefighter" in found["text server"].detail
        assert "30 %" in found["reward of texts"].detail
        assert "ComfyUI" not in found

        body = {"prompt": "alone", "validated_backends": False}
        id = api.call("POST", "generate/text/async", body).json()["id"]
        command = [sys.executable, "-m", "worker", "--home", str(tmp_path), "run", "--plain"]
        with (tmp_path / "output").open("wb") as output:
            worker = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                until(lambda: any(each.state is State.ok for each in sandbox.books().texts))
                answer = api.call("GET", f"generate/text/status/{id}").json()
                assert [each["text"] for each in answer["generations"]] == [told("alone")]
                overview = argparse.Namespace(home=tmp_path, json=True, watch=False)
                until(lambda: status(overview) == 0 and _done(tmp_path) == 1)
                options = argparse.Namespace(maintenance="on", message=None, info=None, team=None)
                assert run_worker_command(load_config(file), options) == 0
                page = api.call("GET", "workers/name/a scribe").json()
                assert page["maintenance_mode"], "of the scribe, since it is the only worker"
            finally:
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(LONG_SECONDS) == 0, (tmp_path / "output").read_text()
        assert not (tmp_path / "logs" / "engine.log").exists()


def _done(home: Path) -> int:
    overview = Orders(home / STATE).answered()
    return overview.others[0].done if overview and overview.others else 0


def test_the_server_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with KoboldServer() as server:
        pass
    file = tmp_path / "bridgeData.yaml"
    file.write_text(
        f"api_key: {WORKER_KEY}\nscribe_name: a scribe\nscribe_only: true\n"
        f"text_backend: {server.url}\nhorde_url: {server.url}\n"
    )
    found = {each.name: each for each in findings(tmp_path, file)}
    assert found["text server"].verdict is Verdict.failed
    assert "connection refused" in found["text server"].detail
    assert found["text server"].remedy == "start it, or correct text_backend"

"""llama.cpp's own server, of the package xllamacpp, with the alphabet's model, in a process.

`python -m tests.support.llama_server MODEL PORT` says its address, and ends with its input.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

TEXTS_AT_ONCE = 2
CONTEXT_LENGTH = 256  # tokens, of each text


class LlamaServer:
    """One that serves while its context lasts, or until it is killed; then it may start again."""

    def __init__(self, model: Path, port: int = 0):
        self._model = model
        self._port = port
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __spec__.name, str(self._model), str(self._port)]
        with Path(f"{self._model}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        self.url = next(line.strip() for line in self._process.stdout if line.startswith("http"))
        self._port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hold(self) -> None:
        """It takes what it is asked, and answers nothing, until it is killed."""
        self._process.send_signal(signal.SIGSTOP)


def _serve(model: str, port: str) -> None:
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = TEXTS_AT_ONCE
    params.n_ctx = CONTEXT_LENGTH * TEXTS_AT_ONCE
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    server = Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(*sys.argv[1:])

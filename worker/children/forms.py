"""The bridge's side of the child that does forms on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hordelib.errors import EngineError, GenerationFailed
from hordelib.job.images import SourceImage
from worker.children import forms_main
from worker.children.messages import Answered, FormsSettings, Solve, Unanswered
from worker.children.supervisor import Limit, Supervisor


@dataclass(frozen=True, slots=True)
class FormsPatience:
    """How long the child may take, in seconds, before it counts as hung and is killed."""

    start: float = 60
    heartbeat: float = 20
    form: float = 60


class FormsProcess:
    """One spawned child, started by the first form. Any thread may ask; one is served at a time."""

    def __init__(
        self,
        settings: FormsSettings,
        patience: FormsPatience | None = None,
        main: Callable[[Any, Any], None] = forms_main.main,
    ):
        self._patience = patience or FormsPatience()
        self._child = Supervisor(
            "alchemist", main, settings, log_file=settings.log_file, gone=EngineError
        )
        self._asking = threading.Lock()
        self._number = 0
        self._stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def solve(self, form: str, image: SourceImage) -> Any:
        """The result, as JSON would have it. Raises GenerationFailed where this form has none.

        A child that dies or hangs costs the form that it was at; the next one gets a fresh one.
        """
        with self._asking:
            try:
                report = self._asked(form, image)
            except EngineError as error:
                raise GenerationFailed(f"{form}: {error}") from error
        if isinstance(report, Unanswered):
            raise GenerationFailed(f"{form}: {report.reason}")
        return report.result

    def stop(self, timeout: float = 5) -> None:
        """End the child; `solve` raises from then on."""
        self._stopping.set()
        self._child.stop(timeout)

    def kill(self) -> None:
        """End the child at once, from any thread; `solve` raises from then on."""
        self._stopping.set()
        self._child.kill()

    def _asked(self, form: str, image: SourceImage) -> Answered | Unanswered:
        if self._stopping.is_set():
            raise EngineError("the worker is stopping")
        if not self._child.is_alive:
            self._child.start(self._patience.start)
        self._number += 1
        self._child.send(Solve(self._number, form, image), self._patience.heartbeat)
        limit = Limit(self._patience.form, f"for the form {form}")
        report = self._child.receive(limit, silence=self._patience.heartbeat)
        if not isinstance(report, Answered | Unanswered) or report.number != self._number:
            self._child.fail("the alchemist's process spoke garbage")
        return report

"""A scribe between a local horde and a text server, for tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from tests.support.sandbox_client import CLIENT_KEY, MODELS, WORKER_KEY, Api, Json
from worker.config.keys import BridgeConfig
from worker.horde.client import HordeClient
from worker.horde.kinds import Kind
from worker.horde.texts import TextJob
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE, Ledger
from worker.jobs.status import StatusView
from worker.line.companion import Companion
from worker.line.gaps import Gaps
from worker.sandbox import Sandbox, State, TextEntry
from worker.scribe.scribe import Scribe

LONG_SECONDS = 120.0


class QuietLine:
    """No pictures are made."""

    is_ready, is_paused, in_hand = True, False, 0
    seconds_ahead = 0.0

    def __init__(self) -> None:
        self.gaps = Gaps(lambda: None, Event(), tuple)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Stage:
    def __init__(self, folder: Path):
        self.folder = folder
        self.sandbox = Sandbox(MODELS)
        self.sandbox.start()
        self.client = Api(self.sandbox.url, CLIENT_KEY)
        self.ledger = Ledger(folder / FILE)
        self.scribes: list[Companion[TextJob]] = []
        self.line = QuietLine()

    def serve(self, url: str, **changes: object) -> Companion[TextJob]:
        config = BridgeConfig.model_validate(
            {
                "api_key": WORKER_KEY,
                "dreamer_name": "a dreamer",
                "scribe_name": "a scribe",
                "text_backend": url,
                **changes,
            }
        )
        horde = HordeClient(self.sandbox.url, WORKER_KEY, client_agent="test:1:x")
        journal = Journal(self.ledger, most_drops=1000, kind=Kind.text)
        self.scribes.append(Companion(Scribe(horde, config), horde, journal))
        self.scribes[-1].start(self.line)
        return self.scribes[-1]

    def ask(self, prompt: str = "Once upon a time", **params: object) -> str:
        body: Json = {"prompt": prompt, "params": params, "validated_backends": False}
        reply = self.client.call("POST", "generate/text/async", body)
        assert reply.status_code == 202, reply.text
        return reply.json()["id"]

    def texts(self, id: str) -> list[TextEntry]:
        return [each for each in self.sandbox.books().texts if each.request_id == id]

    def result(self, id: str) -> str:
        """The text of a request for one, once it is there."""
        until(lambda: any(each.state is State.ok for each in self.texts(id)))
        return next(each.text for each in self.texts(id) if each.state is State.ok)

    def reason(self, scribe: Companion[TextJob], part: str) -> None:
        """Wait for a fault with these words in its reason."""
        until(lambda: any(part in reason for reason in reasons(scribe.view())))

    def close(self) -> None:
        for scribe in self.scribes:
            scribe.abandon()
            assert scribe.join(LONG_SECONDS)
        self.client.http.close()
        self.sandbox.stop()
        self.ledger.close()


def reasons(view: StatusView) -> list[str]:
    return [row.reason for row in view.rows]

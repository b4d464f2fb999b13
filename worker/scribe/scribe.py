"""The trade of a scribe: which texts are popped when, and what becomes of each.

pop → read the payload → have the text written → submit
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.config.keys import BridgeConfig
from worker.errors import CantServeNow
from worker.horde.api import State
from worker.horde.client import HordeClient
from worker.horde.kinds import Kind, PoppedTasks
from worker.horde.texts import TextJob, TextOffer, TextSubmission
from worker.jobs.results import STOPPING, Failed, Solved
from worker.line.delivery import Delivery
from worker.line.gaps import PictureLine
from worker.scribe.connection import NoSuchCall, ServerBusy, ServerGone, connection_of
from worker.scribe.introduction import text_agent, told_reward
from worker.scribe.order import TextOrder, read_order
from worker.scribe.speed import TextSpeed
from worker.scribe.text_server import TextServer, found_out, is_in_use, model_of
from worker.scribe.writing import Writing

log = logging.getLogger(__name__)

LENGTH, CONTEXT_LENGTH = 512, 2048  # tokens, where neither owner nor server says
LOOK_SECONDS = 15.0  # between two looks at the server's model, while texts are popped
UNFIT_SECONDS = 600.0  # before a server is tried again that has no call for texts
BUSY_SECONDS = (1.0, 10.0)  # before a server is asked again that has no room


class Scribe:
    """What a Companion does where it serves texts.

    Raises ValueError for a configuration without scribe_name and text_backend.
    """

    kind = Kind.text
    at_pause = (
        "paused; the text server keeps what it has on the card: stop it, or unload its model there,"
        " to free that"
    )
    room = 1

    def __init__(self, horde: HordeClient, config: BridgeConfig):
        if config.scribe_name is None:
            raise ValueError("a scribe needs scribe_name")
        self._horde = horde
        self._config = config
        self.name = config.scribe_name
        self.at_once = self.lanes = config.text_threads
        self.hurry = threading.Event()
        self._connection = connection_of(config, self.hurry)
        self._speed = TextSpeed()
        self._writing = Writing(self._connection, self._speed)
        self._lock = threading.Lock()  # held while the server is asked what it is
        self._counting = threading.Lock()
        self._server: TextServer | None = None
        self._looked_at = 0.0
        self._unfit = ("", 0.0)  # why no text can be asked of the server, and until when
        self._username = ""
        self._in_hand = 0  # texts that the server writes for us
        self._told: object = None

    def pop(self, line: PictureLine, amount: int) -> PoppedTasks[TextJob] | None:
        """Nothing while the server writes for its owner."""
        server = self._known()
        if not self._in_hand and is_in_use(self._connection, server):
            return None
        return self._horde.pop_texts(self._offer(server, amount))

    def outcome(self, task: TextJob, line: PictureLine, delivery: Delivery) -> Solved | Failed:
        slot = task.slots[0]
        if self.hurry.is_set():
            return Failed(slot, STOPPING)
        if elapsed_seconds() > task.given_up_at:
            return Failed(slot, "its time was over before it could be begun")
        order = read_order(task.payload)
        try:
            return self._written(task, order)
        except ServerGone as error:
            self._forget()
            return Failed(slot, STOPPING if self.hurry.is_set() else str(error))

    def submission(self, label: str, outcome: Solved | Failed) -> TextSubmission:
        match outcome:
            case Solved(slot, value):
                return TextSubmission(slot.id, State.OK, str(value))
            case Failed(slot):
                return TextSubmission(slot.id, State.FAULTED)

    def owed(self, debt: object) -> TextJob | None:
        return debt if isinstance(debt, TextJob) else None

    def stop(self) -> None:
        self._connection.close()

    def kill(self) -> None:
        """Calls see `hurry`, which ends them."""

    def _written(self, task: TextJob, order: TextOrder) -> Solved | Failed:
        slot, server = task.slots[0], self._known()
        if self._name_of(server) != task.model:
            return Failed(slot, f"the text server has another model now: {server.model}")
        text = self._insist(lambda: self._write(server, order, task), task.given_up_at)
        try:
            now = model_of(self._connection, server)
        except CantServeNow:  # it has gone since: what it wrote before is whole
            self._forget()
            return Solved(slot, text)
        if now is not None and now != server.model:
            self._forget()
            return Failed(slot, f"the text server was given another model meanwhile: {now}")
        return Solved(slot, text)

    def _write(self, server: TextServer, order: TextOrder, task: TextJob) -> str:
        with self._counting:
            self._in_hand += 1
        try:
            return self._writing.write(server, order, task.id, task.given_up_at)
        except NoSuchCall as error:  # one of chats alone, such as `transformers serve`
            why = f"{error}; it continues no prompts: choose another text server"
            self._unfit = (why, elapsed_seconds() + UNFIT_SECONDS)
            raise ServerGone(why) from error
        finally:
            with self._counting:
                self._in_hand -= 1

    def _insist(self, write: Callable[[], str], until: float) -> str:
        """Wait for a server that has no room, as long as the text's time lasts."""
        backoff = Backoff(*BUSY_SECONDS)
        while True:
            try:
                return write()
            except ServerBusy as error:
                delay = backoff.delay()
                if elapsed_seconds() + delay > until or self.hurry.wait(delay):
                    raise ServerGone(str(error)) from error

    def _known(self) -> TextServer:
        """The server, asked anew now and then. Raises CantServeNow."""
        with self._lock:
            server, now = self._server, elapsed_seconds()
            why, until = self._unfit
            if now < until:
                raise CantServeNow(why)
            if server is None or now > self._looked_at + LOOK_SECONDS:
                config = self._config
                try:
                    server = found_out(self._connection, config.text_api, config.text_model)
                except CantServeNow:
                    self._server = None
                    raise
                self._server, self._looked_at = server, now
                self._tell(server)
            return server

    def _forget(self) -> None:
        with self._lock:
            self._server = None

    def _tell(self, server: TextServer) -> None:
        if server != self._told:
            self._told = server
            log.info(
                "texts by %s (%s) at %s, offered as %s: %s",
                server.software,
                server.api,
                self._connection.url,
                self._name_of(server),
                told_reward(server),
            )

    def _name_of(self, server: TextServer) -> str:
        """As the horde is told it; with whose it is, where the owner wants that."""
        if not self._config.branded_model:
            return server.offered
        self._username = self._username or self._horde.whoami().username
        return f"{server.offered}::{self._username}"

    def _offer(self, server: TextServer, amount: int) -> TextOffer:
        config = self._config.now
        length, context = lengths(config, server)
        return TextOffer(
            name=self.name,
            models=(self._name_of(server),),
            bridge_agent=text_agent(server),
            max_length=self._speed.longest(length),
            max_context_length=context,
            amount=amount,
            threads=config.text_threads,
            nsfw=config.nsfw,
            blacklist=config.blacklist,
            priority_usernames=config.priority_usernames,
            require_upfront_kudos=config.require_upfront_kudos,
        )


def lengths(config: BridgeConfig, server: TextServer) -> tuple[int, int]:
    """Tokens of the longest text, and of the longest prompt and text together."""
    context = config.max_context_length or server.max_context_length or CONTEXT_LENGTH
    return min(config.max_length or server.max_length or LENGTH, context), context

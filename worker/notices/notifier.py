"""Looks at a running worker and writes to its owner, by a thread that nobody waits for."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from worker.command_line import as_typed
from worker.config.keys import BridgeConfig
from worker.config.secret_values import secrets_of
from worker.jobs.journal import Journal
from worker.models.inventory import ModelsFolder
from worker.models.offered import OfferedModels
from worker.models.sites import read_queues
from worker.net.untrusted import one_line
from worker.notices.attention import Attention, Notice, Seen
from worker.notices.posting import Sent, post
from worker.service.orders import Orders
from worker.service.releases import news

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
AGAIN_SECONDS = (60.0, 600.0, 3600.0)  # after each try that an address did not take; then no more
MOST_WAITING = 20  # notices; more come only where everything goes wrong at once
LONGEST_BODY = 2000  # characters
END_SECONDS = 10.0  # for the word that the worker ends by an error; then it ends all the same

Post = Callable[[Sequence[str], str, str], tuple[Sent, ...]]


@dataclass(frozen=True, slots=True)
class _Letter:
    """A notice on its way to those addresses that have not taken it yet."""

    title: str
    body: str
    addresses: tuple[str, ...]
    tries: int = 0
    due: float = 0.0  # of time.monotonic()


class Notifier:
    """Writes to the addresses of `notify`; where there are none, it does nothing at all.

    Any thread may call it, and none of its methods waits for the network.
    """

    def __init__(self, config: BridgeConfig, state: Path, send: Post = post):
        self._name = config.dreamer_name
        self._config = config
        self._attention = Attention(config, state, time.monotonic)
        self._letters: queue.Queue[_Letter] = queue.Queue(MOST_WAITING)
        self._over = threading.Event()
        self._post = send

    @property
    def _addresses(self) -> tuple[str, ...]:
        return tuple(each.get_secret_value() for each in self._config.now.notify)

    @contextmanager
    def watching(self, seen: Seen) -> Generator[None]:
        """While this lasts, it is looked for what deserves a notice."""
        threads = [
            threading.Thread(target=work, args=args, name="notices", daemon=True)
            for work, args in ((self._look, (seen,)), (self._deliver, ()))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()

    @contextmanager
    def telling(self, line: Callable[[Exception], str]) -> Generator[Self]:
        """An error that ends what is within is written about, in a line, and goes on.

        That takes END_SECONDS at most.
        """
        try:
            yield self
        except Exception as error:
            if self._addresses:
                self._stopped(line(error))
            raise

    def _stopped(self, why: str) -> None:
        self._over.set()
        for notice in self._attention.stopped(why):
            left = [self._letter(notice)]

            def send(left: list[_Letter] = left) -> None:
                left[:] = self._send(left[0])

            thread = threading.Thread(target=send, daemon=True)
            thread.start()
            thread.join(END_SECONDS)
            if left:  # nobody has heard of it
                self._attention.untold(notice)

    def _look(self, seen: Seen) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if not self._addresses:
                continue
            try:
                for notice in self._attention.look(seen):
                    self._letters.put_nowait(self._letter(notice))
            except queue.Full:
                log.warning("notify: %d notices wait already; one is left out", MOST_WAITING)
            except Exception:
                log.exception("a bug of ours ended the notices; jobs go on")
                return

    def _letter(self, notice: Notice) -> _Letter:
        body = as_typed(notice.body)
        for secret in (*secrets_of(self._config), *secrets_of(self._config.now)):
            body = body.replace(secret, "(left out)")
        title = one_line(f"Dreamer, {self._name}: {notice.title}", 200)
        return _Letter(title, body[:LONGEST_BODY], self._addresses)

    def _deliver(self) -> None:
        again: list[_Letter] = []
        while not self._over.is_set():
            with suppress(queue.Empty):
                again.append(self._letters.get(timeout=LOOK_SECONDS))
            now = time.monotonic()
            due = [each for each in again if each.due <= now]
            again = [each for each in again if each.due > now]
            for letter in due:
                again += self._send(letter)

    def _send(self, letter: _Letter) -> list[_Letter]:
        """What is to be tried again, and when."""
        sent = self._post(letter.addresses, letter.title, letter.body)
        pairs = zip(letter.addresses, sent, strict=True)
        left = tuple(address for address, each in pairs if each.problem)
        if not left:
            return []
        told = "; ".join(f"{each.name}: {each.problem}" for each in sent if each.problem)
        if letter.tries >= len(AGAIN_SECONDS):
            log.warning("notify: %r was not delivered: %s", letter.title, as_typed(told))
            return []
        pause = AGAIN_SECONDS[letter.tries]
        log.warning("notify: %s; tried again in %.0f min", as_typed(told), pause / 60)
        due = time.monotonic() + pause
        return [_Letter(letter.title, letter.body, left, letter.tries + 1, due)]


def seen_of(
    config: BridgeConfig, home: Path, orders: Orders, offered: OfferedModels, journal: Journal
) -> Seen:
    """The worker of this process, and what the network says of its models and of its version."""
    folder = ModelsFolder.of(config, home)
    return Seen(
        overview=lambda: orders.latest,
        withdrawn=lambda: offered.withdrawn,
        free_bytes=lambda: folder.free_bytes,
        idle_reason=lambda: journal.view().obstacle.told,
        queues=lambda: _waiting(folder),
        newest=lambda: news(config, folder.documents),
    )


def _waiting(folder: ModelsFolder) -> Mapping[str, float]:
    queues = read_queues(folder.documents, folder.config.horde_url)
    return {name: each.queued for name, each in queues.items()}

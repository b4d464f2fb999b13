"""What goes wrong, drawn from a seed: one row per kind of trouble."""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.chaos import verdict
from tests.chaos.figures import Figures
from tests.chaos.form_orders import ALCHEMIST
from tests.chaos.service import Service
from tests.chaos.stand_in import LIVES, be_good, has_begun
from tests.chaos.text_orders import SCRIBE, ShakyServer
from tests.chaos.verdict import Kill, Kills
from worker.jobs.durable_sqlite import opened_for_reading
from worker.jobs.ledger import FILE as LEDGER
from worker.sandbox import (
    CutShort,
    Disconnect,
    Endpoint,
    HandedOutAgain,
    Html,
    Latency,
    LostReply,
    NamedTwice,
    PortTaken,
    Reply,
    Sandbox,
)
from worker.sandbox.errors import Refusal
from worker.sandbox.faults import Effect

NAME = "tester"
PORT_SECONDS = 10.0
LEDGER_SECONDS = 30.0  # the worker tries twice a second; a busy machine is slower
WEATHER: Mapping[Effect, float] = {
    Latency(0.15): 0.06,
    Reply(500): 0.01,
    Reply(503, retry_after_seconds=1): 0.005,
    Reply(429, retry_after_seconds=1): 0.005,
    Html(): 0.01,
    Disconnect(): 0.01,
    LostReply(): 0.015,
    CutShort(): 0.015,
    HandedOutAgain(): 0.01,
    NamedTwice(): 0.01,
}
STORM: Mapping[Effect, float] = {Reply(500): 0.15, Html(): 0.15, Disconnect(): 0.15}
RUSH: Mapping[Effect, float] = {Reply(429, retry_after_seconds=1): 0.6}


@dataclass
class World:
    """What there is to disturb, and what has been done to it."""

    sandbox: Sandbox
    service: Service
    draw: random.Random
    spare_model: Path | None = None
    """The file of a model that the worker can do without."""
    text_server: ShakyServer | None = None
    kills: Kills = field(default_factory=Kills)
    done: Counter[str] = field(default_factory=Counter[str])
    figures: list[str] = field(default_factory=list[str])
    """What the worker took, now and then."""
    diary: list[str] = field(default_factory=list[str])
    """Each trouble, with the time when it began and when it was over."""
    began: float = field(default_factory=time.monotonic)

    @property
    def state_folder(self) -> Path:
        return self.service.home / "state"

    def submitted(self) -> int:
        """Images, forms and texts."""
        taken = self.sandbox.tally().statuses
        calls = (Endpoint.SUBMIT, Endpoint.FORM_SUBMIT, Endpoint.TEXT_SUBMIT)
        return sum(taken.get((call, 200), 0) for call in calls)

    def tell_figures(self) -> None:
        seconds = time.monotonic() - self.began
        self.figures.append(f"{self.submitted()} in {seconds:.0f} s: {Figures.of(self.service)}")
        print(self.figures[-1], flush=True)

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.draw.uniform(least, most))

    def set_weather(self, faults: Mapping[Effect, float]) -> None:
        """Let these hit every endpoint, each with its probability, in the place of those before."""
        self.sandbox.faults.clear()
        for endpoint in Endpoint:
            for effect, probability in faults.items():
                seed = self.draw.getrandbits(32)
                self.sandbox.faults.inject(endpoint, effect, probability=probability, seed=seed)

    def forgive(self) -> None:
        """End the maintenance that the horde orders for a worker that drops too much."""
        with suppress(Refusal):  # it does not know the worker yet
            self.sandbox.set_maintenance(NAME, False)

    def bear(self) -> None:
        """To be called often while something is waited for."""
        self.service.insist_on_life()
        self.forgive()

    def calm_down(self) -> None:
        """End every trouble, those too that stand-ins make."""
        self.sandbox.faults.clear()
        self.service.thaw()
        be_good(self.service.home / LIVES)
        if self.text_server is not None:
            self.text_server.is_good = True


def _kill_worker(world: World) -> None:
    _kill(world)
    world.service.start()


def _kill(world: World) -> None:
    world.service.freeze()
    in_memory = not world.service.has_open(world.state_folder / LEDGER)
    at = world.service.kill()
    world.kills.worker.append(Kill(at, _in_ledger(world), in_memory))


def _kill_worker_at_its_start(world: World) -> None:
    _kill_worker(world)
    world.pause(0.1, 1.5)
    _kill_worker(world)


def _kill_worker_and_leave_junk(world: World) -> None:
    """Half-written files, and a shared-memory index of nothing."""
    _kill(world)
    world.state_folder.mkdir(exist_ok=True)
    (world.state_folder / "half-written.tmp").write_bytes(world.draw.randbytes(1000))
    for index in world.state_folder.glob("*-shm"):
        index.write_bytes(world.draw.randbytes(len(index.read_bytes())))
    world.service.start()


def _restart_worker(world: World) -> None:
    world.service.stop()
    world.service.start()


def _child(world: World) -> psutil.Process | None:
    children = world.service.children()
    return world.draw.choice(children) if children else None


def _kill_child(world: World) -> None:
    with suppress(psutil.NoSuchProcess):
        if child := _child(world):
            child.kill()
            world.kills.children.append(time.time())


def _kill_engine(world: World) -> None:
    """One of several, while the others go on."""
    lives = (world.service.home / LIVES).glob("engine-*/*")
    running = {int(life.name) for life in lives} & {it.pid for it in world.service.children()}
    if running:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(world.draw.choice(sorted(running))).kill()
            world.kills.children.append(time.time())


def _freeze_child(world: World) -> None:
    with suppress(psutil.NoSuchProcess):
        if child := _child(world):
            child.suspend()
            world.pause(0.5, 1.5)
            child.resume()


def _freeze_child_for_good(world: World) -> None:
    """The worker has to notice; this takes it its heartbeats' time, unless it is killed first.

    One that is still loading its libraries has no heartbeat, and minutes to start.
    """
    with suppress(psutil.NoSuchProcess):
        if (child := _child(world)) and has_begun(world.service.home / LIVES, child.pid):
            child.suspend()


def _horde_goes_away(world: World) -> None:
    world.sandbox.stop()
    world.pause(0.3, 2.0)
    _come_back(world.sandbox)


def _come_back(sandbox: Sandbox) -> None:
    """On its own port, which somebody's outgoing call may have taken meanwhile."""
    until = time.monotonic() + PORT_SECONDS
    while True:
        try:
            sandbox.start()
        except PortTaken:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def _fill_disk(world: World) -> None:
    """Ends when the worker's ledger is on the disk again.

    What is popped meanwhile is in memory alone, as the worker says: a kill at once would lose it.
    """
    world.service.limit_files(0)
    world.pause(0.5, 2.0)
    world.service.limit_files(resource.RLIM_INFINITY)
    until = time.monotonic() + LEDGER_SECONDS
    while not _has_returned_to_disk(world) and time.monotonic() < until:
        time.sleep(0.05)


def _has_returned_to_disk(world: World) -> bool:
    """A worker that keeps its ledger in memory has closed the file."""
    if not world.service.has_open(world.state_folder / LEDGER):
        return False
    at_work = verdict.at_work(world.sandbox.open_books(), world.kills.worker)
    return _in_ledger(world).issuperset(at_work)


def _in_ledger(world: World) -> frozenset[str]:
    with suppress(OSError), opened_for_reading(world.state_folder / LEDGER) as read:
        known = "SELECT id FROM images WHERE kind = 'image' OR ended_at IS NULL"
        return frozenset(row["id"] for row in read(known))
    return frozenset()


def _damage_model(world: World) -> None:
    """Cut a model off; once it is whole again, its owner restarts the worker."""
    assert world.spare_model is not None
    whole = world.spare_model.read_bytes()
    world.spare_model.write_bytes(whole[: len(whole) // 2])
    world.pause(0.5, 1.5)
    world.spare_model.write_bytes(whole)
    _restart_worker(world)


def _maintain(world: World) -> None:
    names = world.draw.choice(((NAME,), (ALCHEMIST, SCRIBE), (NAME, ALCHEMIST, SCRIBE)))
    with suppress(Refusal):  # it does not know the others yet, or there are none
        for name in names:
            world.sandbox.set_maintenance(name, True)
    world.pause(0.2, 1.0)
    with suppress(Refusal):
        for name in names:
            world.sandbox.set_maintenance(name, False)


def _storm(world: World) -> None:
    world.set_weather(STORM)
    world.pause(0.5, 1.5)
    world.set_weather(WEATHER)


def _rush(world: World) -> None:
    world.set_weather(RUSH)
    world.pause(0.5, 1.5)
    world.set_weather(WEATHER)


def _text_server_goes_away(world: World) -> None:
    """It comes back with another model."""
    assert world.text_server is not None
    world.text_server.is_gone = True
    world.pause(0.2, 1.0)
    world.text_server.load_another_model()
    world.text_server.is_gone = False


Trouble = Callable[[World], None]

# How often each comes in one deck.
VOLUME: Mapping[Trouble, int] = {
    _kill_worker: 3,
    _kill_worker_at_its_start: 1,
    _kill_worker_and_leave_junk: 1,
    _restart_worker: 1,
    _kill_child: 2,
    _freeze_child: 1,
    _freeze_child_for_good: 1,
    _horde_goes_away: 1,
    _fill_disk: 1,
    _damage_model: 1,
    _maintain: 1,
    _text_server_goes_away: 2,
    _storm: 1,
    _rush: 1,
}
ENGINES: Mapping[Trouble, int] = {_kill_engine: 4, _kill_worker: 1}
REAL: Mapping[Trouble, int] = {
    _kill_worker: 2,
    _kill_child: 2,
    _horde_goes_away: 1,
    _fill_disk: 1,
    _storm: 1,
}


def troubles(draw: random.Random, deck: Mapping[Trouble, int]) -> Iterator[Trouble]:
    """Deals a shuffled deck, then another one, and so on."""
    cards = [trouble for trouble, times in deck.items() for _ in range(times)]
    while True:
        yield from draw.sample(cards, len(cards))


def strike(world: World, trouble: Trouble) -> None:
    world.service.insist_on_life()
    name = trouble.__name__.strip("_").replace("_", " ")
    world.done[name] += 1
    began = time.time()
    trouble(world)
    world.diary.append(f"{began:.2f} to {time.time():.2f}: {name}")

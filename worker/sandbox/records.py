"""The rows that the horde keeps: accounts, workers, requests, generations.

Plain mutable data. Only the modules that implement the rules change them, under the horde's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from worker.sandbox.errors import Refusal
from worker.sandbox.rules.capabilities import NEWEST_GATE, BridgeAgent
from worker.sandbox.wire import GenerateBody, Metadata, PopBody

STALE_SECONDS = 300
SPEED_SAMPLES = 20
NEWCOMER_PIXELSTEPS_PER_SECOND = 1_000_000.0


ANONYMOUS_KEY = "0000000000"


@dataclass(frozen=True, slots=True)
class User:
    """An account of the horde. `concurrency` is how many images it may have open at once.

    `public_workers`: everybody may see which workers are its own. `customizer`: they may offer
    models that no reference has. `safe_ip`: it does not ask through a VPN, or the like.
    """

    alias: str
    id: int
    key: str
    kudos: float = 0.0
    trusted: bool = False
    moderator: bool = False
    public_workers: bool = False
    customizer: bool = False
    safe_ip: bool = True
    concurrency: int = 30

    @property
    def username(self) -> str:
        return f"{self.alias}#{self.id}"


DEFAULT_USERS = (
    User("Anonymous", 0, ANONYMOUS_KEY, concurrency=500),
    User("owner", 1, "sandbox-worker-key-000", kudos=10_000, trusted=True),
    User("client", 2, "sandbox-client-key-000", kudos=1_000_000, concurrency=500),
    User("newbie", 3, "sandbox-newbie-key-000", kudos=25),
)


DEFAULT_TEAMS = {"0bed257b-e57c-4327-ac64-40cdfb1ac5e6": "Sandbox Team"}


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """A row of the model reference. The step range decides what `limit_max_steps` skips."""

    baseline: str
    inpainting: bool = False
    min_steps: int = 20
    max_steps: int = 40


class State(StrEnum):
    """What became of one generation."""

    processing = "processing"
    ok = "ok"
    faulted = "faulted"
    """The worker gave it up."""
    aborted = "aborted"
    """The cleaner took it away after its ttl."""
    cancelled = "cancelled"
    """Its request expired while the worker still held it."""


@dataclass(slots=True)
class Account:
    user: User
    kudos: float
    evaluating_kudos: float = 0.0
    flagged: bool = False


@dataclass(slots=True)
class Worker:
    """A worker's row; `offer` is what its last check-in stored."""

    id: str
    name: str
    owner: Account
    created_at: float
    checked_in_at: float
    offer: PopBody
    models: tuple[str, ...]
    maintenance: str | None = None
    """The message of maintenance mode, or None outside it."""
    info: str = ""
    team: str = ""
    """The id of one, or "" for none."""
    kudos_generated: float = 0.0
    kudos_uptime: float = 0.0
    uptime_seconds: float = 0.0
    rewarded_uptime_seconds: float = 0.0
    fulfilled: int = 0
    pixelsteps: int = 0
    suspicions: int = 0
    uncompleted: int = 0
    drops: deque[float] = field(default_factory=deque[float])
    speeds: deque[float] = field(default_factory=lambda: deque[float](maxlen=SPEED_SAMPLES))

    @property
    def pixelsteps_per_second(self) -> float:
        if not self.speeds:
            return NEWCOMER_PIXELSTEPS_PER_SECOND
        return sum(self.speeds) / len(self.speeds)

    def online(self, now: float) -> bool:
        return now - self.checked_in_at <= STALE_SECONDS


@dataclass(frozen=True, slots=True)
class Sources:
    """Object names of a request's source pictures."""

    image: str | None = None
    mask: str | None = None
    extras: tuple[str, ...] = ()


@dataclass(slots=True)
class Request:
    """A client's request. `waiting` images are still to be handed out."""

    id: str
    account: Account
    body: GenerateBody
    sources: Sources
    created_at: float
    expires_at: float
    waiting: int
    consumed_kudos: float
    faulted: bool = False
    cancelled: bool = False
    expired: bool = False
    generations: list[Generation] = field(default_factory=list["Generation"])

    def count(self, *states: State) -> int:
        return sum(generation.state in states for generation in self.generations)

    @property
    def restarted(self) -> int:
        return self.count(State.faulted, State.aborted)

    @property
    def done(self) -> bool:
        return self.faulted or (self.waiting == 0 and self.count(State.processing) == 0)

    @property
    def needs_worker(self) -> bool:
        return self.waiting > 0 and not self.faulted

    @property
    def pixelsteps(self) -> int:
        params = self.body.params
        return params.pixels * params.effective_steps


@dataclass(frozen=True, slots=True)
class Settling:
    """One submit of a generation that reached the rules: `rc` is "" where they accepted it."""

    at: float
    state: str
    """What the worker said: "faulted", "ok", or what counts as ok."""
    rc: str


@dataclass(slots=True)
class Generation:
    """One image in a worker's hands."""

    id: str
    request: Request
    worker: Worker
    model: str
    popped_at: float
    ttl_seconds: int
    asked_seed: int
    """The seed of the pop's payload and the image's place in it: what makes this very image."""
    state: State = State.processing
    seed: int | None = None
    gen_metadata: tuple[Metadata, ...] = ()
    image: str = ""
    """What the client gets: "R2" for an uploaded object, else the worker's own text."""
    reward: float = 0.0
    settlings: list[Settling] = field(default_factory=list[Settling])
    unheard: bool = False
    """The pop that handed it out was answered, and the answer did not reach the worker."""

    @property
    def object_name(self) -> str:
        return f"{self.id}.webp"

    @property
    def censored(self) -> bool:
        return any(row.type == "censorship" for row in self.gen_metadata)


@dataclass(slots=True)
class Message:
    """A note from the horde's operators, delivered with each pop until it expires."""

    id: str
    text: str
    origin: str
    expires_at: float


# How the names of models end that no reference has, and what the server makes of that.
_SUFFIXES = {
    "[sdxl]": "stable_diffusion_xl",
    "[flux]": "flux_1",
    "[qwen]": "qwen_image",
    "[zmodel]": "z_image_turbo",
    "[zimage]": "z_image_turbo",
}


def _baseline_in(name: str) -> str:
    found = (row for suffix, row in _SUFFIXES.items() if name.lower().endswith(suffix))
    return next(found, "stable diffusion 1")


@dataclass(slots=True)
class Records:
    reference: dict[str, ReferenceModel]
    accounts: dict[str, Account]
    """By API key."""
    workers: dict[str, Worker] = field(default_factory=dict[str, Worker])
    """By name."""
    requests: dict[str, Request] = field(default_factory=dict[str, Request])
    """By id, in the order in which they came; an expired one stays but answers to nobody."""
    generations: dict[str, Generation] = field(default_factory=dict[str, Generation])
    _unfinished: dict[str, Request] = field(default_factory=dict[str, Request])
    """Those of `requests` that were neither done nor expired when somebody last looked."""
    _in_hand: dict[str, Generation] = field(default_factory=dict[str, Generation])
    """Those of `generations` that were processing when somebody last looked."""
    messages: list[Message] = field(default_factory=list[Message])
    teams: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_TEAMS))
    """Their names by id."""
    maintenance_mode: bool = False
    invite_only_mode: bool = False
    timeout_until: float = 0.0
    newest_gate: int = NEWEST_GATE
    """The highest version of reGen that the server knows."""
    drop_window_seconds: float = 3600.0
    """For how long a dropped job counts against its worker."""

    def account(self, key: str) -> Account:
        if key not in self.accounts:
            raise Refusal("InvalidAPIKey")
        return self.accounts[key]

    def request(self, id: str) -> Request:
        request = self.requests.get(id)
        if request is None or request.expired:
            raise Refusal("RequestNotFound", id=id)
        return request

    def worker(self, id: str) -> Worker:
        for worker in self.workers.values():
            if worker.id == id:
                return worker
        raise Refusal("WorkerNotFound", id=id)

    def worker_named(self, name: str) -> Worker:
        if name not in self.workers:
            raise Refusal("WorkerNotFound", id=name)
        return self.workers[name]

    def agent(self, worker: Worker) -> BridgeAgent:
        """What this worker is, as far as the server knows of such."""
        return BridgeAgent.parse(worker.offer.bridge_agent, self.newest_gate)

    def model(self, name: str) -> ReferenceModel:
        """The reference's row; of a model nobody knows, its name tells the baseline."""
        return self.reference.get(name) or ReferenceModel(_baseline_in(name))

    def requested_model(self, body: GenerateBody) -> ReferenceModel:
        """The model that prices a request before anyone has taken it: its first."""
        return self.model(next(iter(body.models), ""))

    def enter(self, request: Request) -> None:
        self.requests[request.id] = self._unfinished[request.id] = request

    def hand_out(self, generations: Iterable[Generation]) -> None:
        for row in generations:
            self.generations[row.id] = self._in_hand[row.id] = row

    def unfinished(self) -> list[Request]:
        """Requests that are neither done nor expired, oldest first: none ever becomes so again."""
        for request in [row for row in self._unfinished.values() if row.done or row.expired]:
            del self._unfinished[request.id]
        return list(self._unfinished.values())

    def in_hand(self) -> list[Generation]:
        """Generations that are processing, oldest first: none ever becomes so again."""
        ended = [row for row in self._in_hand.values() if row.state is not State.processing]
        for generation in ended:
            del self._in_hand[generation.id]
        return list(self._in_hand.values())

    def open_requests(self) -> list[Request]:
        """Requests with images to hand out, oldest first."""
        return [row for row in self.unfinished() if row.needs_worker]

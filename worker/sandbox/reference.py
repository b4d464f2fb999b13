"""Who and what a fresh sandbox knows: users and image models."""

from __future__ import annotations

from dataclasses import dataclass

ANONYMOUS_KEY = "0000000000"


@dataclass(frozen=True, slots=True)
class User:
    """An account of the horde. `concurrency` is how many images it may have open at once.

    `public_workers`: everybody may see which workers are its own.
    """

    alias: str
    id: int
    key: str
    kudos: float = 0.0
    trusted: bool = False
    moderator: bool = False
    public_workers: bool = False
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

"""Who and what a fresh sandbox knows: users and image models."""

from __future__ import annotations

from dataclasses import dataclass

ANONYMOUS_KEY = "0000000000"


@dataclass(frozen=True, slots=True)
class User:
    """An account of the horde. `concurrency` is how many images it may have open at once."""

    alias: str
    id: int
    key: str
    kudos: float = 0.0
    trusted: bool = False
    moderator: bool = False
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


@dataclass(frozen=True, slots=True)
class ReferenceModel:
    """A row of the model reference. The step range decides what `limit_max_steps` skips."""

    baseline: str
    inpainting: bool = False
    min_steps: int = 20
    max_steps: int = 40

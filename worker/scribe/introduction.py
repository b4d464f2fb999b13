"""How the horde is told what writes the texts, and what it pays for that.

Of texts, the horde pays names in full that it has tried ("validated"), and others 30 %. Requests
want a validated name unless their clients say otherwise, so others see few of them.
"""

from __future__ import annotations

from worker.config.values import PROJECT_URL
from worker.models.introduction import CLASSIC
from worker.scribe.text_server import Software, TextServer
from worker.version import VERSION

VALIDATED = frozenset({Software.aphrodite})
WHOLE, UNVALIDATED = 1.0, 0.3
_ENDS = {"kobold": "kai", "openai": "oai"}


def text_agent(server: TextServer) -> str:
    """As bridges of texts tell it: the classic worker's name, the server's software, its API."""
    return f"{CLASSIC}~{server.software}~{_ENDS[server.api]}:{VERSION}:{PROJECT_URL}"


def share(server: TextServer) -> float:
    """Of a text's reward."""
    return WHOLE if server.software in VALIDATED else UNVALIDATED


def told_reward(server: TextServer) -> str:
    """For the owner, with what can be done about it."""
    if share(server) == WHOLE:
        return "the horde pays texts of this server in full"
    return (
        f"the horde pays {100 * UNVALIDATED:.0f} % for texts of {server.software}, which it has not"
        " validated behind a bridge, and most requests want a validated server, so hardly any may"
        " come; Aphrodite is paid in full (docs/scribe.md)"
    )

"""A local horde for demos, tests and benchmarks: the v2 API, on loopback.

It refuses what the server refuses. It leaves out shared keys, teams, styles,
paused workers and raid mode.
"""

from worker.errors import PortTaken
from worker.sandbox.books import Absence, Books, GenerationEntry, RequestEntry, Tally
from worker.sandbox.errors import SandboxError
from worker.sandbox.faults import (
    CutShort,
    Disconnect,
    Drip,
    Endpoint,
    Faults,
    HalfHeader,
    HandedOutAgain,
    Html,
    Latency,
    LostReply,
    NamedTwice,
    Part,
    Redirect,
    Reply,
)
from worker.sandbox.horde import Timing
from worker.sandbox.kinds.alchemy_records import FormEntry, HoldEntry
from worker.sandbox.kinds.text_records import TextEntry
from worker.sandbox.limits import DEFAULT_LIMITS, SERVER_LIMITS, Limit
from worker.sandbox.records import (
    ANONYMOUS_KEY,
    DEFAULT_USERS,
    ReferenceModel,
    Settling,
    State,
    User,
)
from worker.sandbox.rules.capabilities import GATE_OF_5_1_5
from worker.sandbox.server import Sandbox, serve

__all__ = [
    "ANONYMOUS_KEY",
    "DEFAULT_LIMITS",
    "DEFAULT_USERS",
    "GATE_OF_5_1_5",
    "SERVER_LIMITS",
    "Absence",
    "Books",
    "CutShort",
    "Disconnect",
    "Drip",
    "Endpoint",
    "Faults",
    "FormEntry",
    "GenerationEntry",
    "HalfHeader",
    "HandedOutAgain",
    "HoldEntry",
    "Html",
    "Latency",
    "Limit",
    "LostReply",
    "NamedTwice",
    "Part",
    "PortTaken",
    "Redirect",
    "ReferenceModel",
    "Reply",
    "RequestEntry",
    "Sandbox",
    "SandboxError",
    "Settling",
    "State",
    "Tally",
    "TextEntry",
    "Timing",
    "User",
    "serve",
]

"""Whether the text server is there, what it is, and what the horde will pay for its texts."""

from __future__ import annotations

from collections.abc import Iterator

from worker.config.keys import BridgeConfig
from worker.errors import CantServeNow
from worker.scribe.introduction import WHOLE, share, told_reward
from worker.scribe.scribe import lengths
from worker.scribe.text_server import ask_server
from worker.setup.finding import Finding, Verdict, failed, ok


def text_findings(config: BridgeConfig) -> Iterator[Finding]:
    """Nothing where no texts are served."""
    if config.scribe_name is None or config.text_backend is None:
        return
    try:
        server = ask_server(config)
    except CantServeNow as error:
        yield failed("text server", str(error), "start it, or correct text_backend")
        return
    length, context = lengths(config, server)
    told = f"{server.software} ({server.api}): {server.model}, offered as {server.offered}"
    told += "::, with your user name behind it" if config.branded_model else ""
    yield ok("text server", f"{told}; texts of {length} tokens, {context} with their prompts")
    if share(server) == WHOLE:
        yield ok("reward of texts", told_reward(server))
    else:
        remedy = "nothing, if that will do; docs/scribe.md says which servers the horde validates"
        yield Finding("reward of texts", Verdict.warning, told_reward(server), remedy)

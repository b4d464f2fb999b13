"""Sends one notice to addresses of apprise, in a process of its own.

Apprise loads a hundred services and asks the network: whatever it does, no thread of the worker
waits for it, and its memory is given back. The order comes by standard input, so that no address,
which may hold a password, is seen in the list of processes.

    python -P -m worker.notices.posting < order.json > what-came-of-it.json
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic import TypeAdapter

from worker.command_line import INSTALL_NOTIFY

SEND_SECONDS = 45.0  # for all addresses, which are asked at the same time
CHILD_SECONDS = SEND_SECONDS + 30.0  # with Python's own start on a busy machine
NOT_INSTALLED = f"apprise is not installed: run {INSTALL_NOTIFY}"
_UNKNOWN = "apprise knows no such address"
_REFUSED = "it can't be reached, or did not take the notice"
_SLOW = f"it did not answer within {SEND_SECONDS:.0f} s"
_ANSWER = TypeAdapter(list[str])


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of one address. `problem` is "" where it took the notice."""

    name: str  # its place in the list and its service, without what may be a secret
    problem: str


def is_installed() -> bool:
    return find_spec("apprise") is not None


def post(addresses: Sequence[str], title: str, body: str) -> tuple[Sent, ...]:
    """Send it to each; without a title only see whether apprise knows the addresses.

    It takes CHILD_SECONDS at most, and raises nothing.
    """
    if not is_installed():
        return _all(addresses, NOT_INSTALLED)
    order = json.dumps({"addresses": list(addresses), "title": title, "body": body})
    command = [sys.executable, "-P", "-W", "ignore", "-m", __name__]
    try:
        done = subprocess.run(
            command,
            input=order.encode(),
            capture_output=True,
            timeout=CHILD_SECONDS,
            check=True,
            start_new_session=True,  # Ctrl-C is for the worker, which may have this to tell yet
        )
        problems = _ANSWER.validate_json(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return _all(addresses, f"apprise failed ({type(error).__name__})")
    return tuple(map(Sent, _names(addresses), problems))


def _all(addresses: Sequence[str], problem: str) -> tuple[Sent, ...]:
    return tuple(Sent(name, problem) for name in _names(addresses))


def _names(addresses: Sequence[str]) -> list[str]:
    return [f"address {n} ({each.partition(':')[0]})" for n, each in enumerate(addresses, 1)]


# ---- the process ---------------------------------------------------------------------------


def main() -> None:
    """Answers with a list that has a problem, or "", for each address."""
    logging.disable()  # apprise's own lines hold addresses
    if sys.platform != "win32":
        os.nice(10)  # jobs come first
    order = json.load(sys.stdin)
    apprise = import_module("apprise")
    count = len(order["addresses"])
    with ThreadPoolExecutor(max(count, 1)) as pool:
        calls = [
            pool.submit(_send, apprise, each, order["title"], order["body"])
            for each in order["addresses"]
        ]
        wait(calls, SEND_SECONDS)
        told = [call.result() if call.done() else _SLOW for call in calls]
        print(json.dumps(told), flush=True)
        os._exit(0)  # whoever does not answer is not waited for


def _send(apprise: Any, address: str, title: str, body: str) -> str:
    try:
        service = apprise.Apprise.instantiate(address)
        if not service:
            return _UNKNOWN
        return "" if not title or service.notify(title=title, body=body) else _REFUSED
    except Exception as error:  # noqa: BLE001 - a hundred services, each by somebody else
        return f"apprise failed ({type(error).__name__})"


if __name__ == "__main__":
    main()

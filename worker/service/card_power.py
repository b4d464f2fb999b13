"""The owner's limit of what the card may take in watts, put back when the worker ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from hordelib.files.whole_files import write_whole
from hordelib.memory.cards import ask_first_card

log = logging.getLogger(__name__)

FILE = "card_power"  # in the state folder: the milliwatts before ours, while ours holds


@contextmanager
def limited_power(wanted: Callable[[], int | None], state: Path) -> Generator[Callable[[], None]]:
    """While this lasts, the card takes so many watts as are `wanted`, as far as the driver allows
    it; what it does not allow is logged.

    The call that it gives looks whether something else is wanted by now. A limit that a killed
    worker has left is put back first.
    """
    file = state / FILE
    _put_back(file)
    set_to: int | None = None

    def follow() -> None:
        nonlocal set_to
        watts = wanted()
        if watts != set_to:
            _put_back(file)
            set_to = watts
            if watts is not None:
                _limit(watts, file)

    follow()
    try:
        yield follow
    finally:
        _put_back(file)


def _limit(watts: int, file: Path) -> None:
    limit = ask_first_card(lambda card: card.power_limit)
    if limit is None:
        log.warning("card_power_limit has no effect: there is no card that has such a limit")
        return
    if not limit.least <= 1000 * watts <= limit.most:
        bounds = f"{limit.least / 1000:.0f} to {limit.most / 1000:.0f} W"
        log.warning("card_power_limit: %d; this card takes %s, and stays as it is", watts, bounds)
        return
    try:
        write_whole(file, str(limit.now).encode())  # first, since a kill may come at any time
    except OSError as error:
        told = "card_power_limit is not set, since it could not be put back: %s: %s"
        log.warning(told, file, error.strerror)
        return
    if refusal := _set_limit(1000 * watts):
        file.unlink(missing_ok=True)
        told = "card_power_limit: the driver refuses %d W (%s); `sudo nvidia-smi -pl %d` sets it"
        log.warning(told, watts, refusal, watts)
        return
    log.info("the card may take %d W (it was %.0f W)", watts, limit.now / 1000)


def _set_limit(milliwatts: int) -> str:
    """Why it is not set; "" where it is."""
    told = ask_first_card(lambda card: card.set_power_limit(milliwatts))
    return "no card answers" if told is None else told


def _put_back(file: Path) -> None:
    """What the file says, if it says something."""
    try:
        before = int(file.read_text("ascii"))
    except (OSError, ValueError):
        return
    if refusal := _set_limit(before):
        watts = before / 1000
        told = (
            "the card's own limit, %.0f W, can't be put back (%s); `sudo nvidia-smi -pl %.0f` does"
        )
        log.warning(told, watts, refusal, watts)
        return
    with suppress(OSError):
        file.unlink()

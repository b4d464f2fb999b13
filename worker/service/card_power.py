"""The owner's limit of what a card may take in watts, put back when the worker ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hordelib.files.whole_files import write_whole
from hordelib.memory.cards import ask_card

log = logging.getLogger(__name__)

FILE = "card_power"  # in the state folder: the milliwatts before ours by UUID, while ours hold
_KEPT: TypeAdapter[dict[str, int] | int] = TypeAdapter(dict[str, int] | int)
ONLY_CARD = (("", ""),)


@contextmanager
def limited_power(
    wanted: Callable[[], int | None], state: Path, cards: Sequence[tuple[str, str]] = ONLY_CARD
) -> Generator[Callable[[], None]]:
    """While this lasts, each card takes so many watts as are `wanted`, as far as the driver allows
    it; what it does not allow is logged.

    The call that it gives looks whether something else is wanted by now. Limits that a killed
    worker has left are put back first.

    Args:
        cards: the name and the UUID of each; both are "" for the one that CUDA calls cuda:0.
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
                for name, uuid in cards:
                    _limit(watts, file, name or "the card", uuid)

    follow()
    try:
        yield follow
    finally:
        _put_back(file)


def _limit(watts: int, file: Path, name: str, uuid: str) -> None:
    limit = ask_card(uuid, lambda card: card.power_limit)
    if limit is None:
        log.warning("card_power_limit has no effect: %s is not there, or has no such limit", name)
        return
    if not limit.least <= 1000 * watts <= limit.most:
        bounds = f"{limit.least / 1000:.0f} to {limit.most / 1000:.0f} W"
        told = "card_power_limit: %d; %s takes %s, and stays as it is"
        log.warning(told, watts, name, bounds)
        return
    before = _kept(file)
    try:  # first, since a kill may come at any time
        _keep(file, {uuid: limit.now, **before})
    except OSError as error:
        told = "card_power_limit is not set, since it could not be put back: %s: %s"
        log.warning(told, file, error.strerror)
        return
    if refusal := _set_limit(uuid, 1000 * watts):
        with suppress(OSError):
            _keep(file, before)
        told = "card_power_limit: the driver refuses %d W for %s (%s); `%s` sets it"
        log.warning(told, watts, name, refusal, _by_hand(uuid, watts))
        return
    log.info("%s may take %d W (it was %.0f W)", name, watts, limit.now / 1000)


def _by_hand(uuid: str, watts: float) -> str:
    return f"sudo nvidia-smi {f'-i {uuid} ' if uuid else ''}-pl {watts:.0f}"


def _set_limit(uuid: str, milliwatts: int) -> str:
    """Why it is not set; "" where it is."""
    told = ask_card(uuid, lambda card: card.set_power_limit(milliwatts))
    return "no card answers" if told is None else told


def _put_back(file: Path) -> None:
    """What the file says, if it says something. What can't be put back is left in it."""
    left: dict[str, int] = {}
    for uuid, before in (kept := _kept(file)).items():
        if refusal := _set_limit(uuid, before):
            left[uuid] = before
            told = "the own limit of %s, %.0f W, can't be put back (%s); `%s` does"
            watts = before / 1000
            log.warning(told, uuid or "the card", watts, refusal, _by_hand(uuid, watts))
    if kept != left:
        with suppress(OSError):
            _keep(file, left)


def _kept(file: Path) -> dict[str, int]:
    """Earlier versions wrote the milliwatts of the first card alone."""
    try:
        told = _KEPT.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return {}
    return {"": told} if isinstance(told, int) else told


def _keep(file: Path, limits: dict[str, int]) -> None:
    if limits:
        write_whole(file, json.dumps(limits).encode())
    else:
        file.unlink(missing_ok=True)

"""All devices of a worker, for the line: what is asked of them, and told to them, together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from math import inf

from worker.horde.api import Offer
from worker.jobs.work import Work
from worker.line.devices.device import Device
from worker.line.devices.device_state import DeviceState
from worker.line.devices.feeder import Feeder, Shared
from worker.line.devices.schedule import late_ones
from worker.line.pausing import PauseKind, PauseReason
from worker.line.threads import Threads


class Feeders:
    """Any thread may call."""

    def __init__(self, devices: Sequence[Device], shared: Shared):
        self._all = [Feeder(device, shared) for device in devices]
        self._predictors = {
            id(it): it for it in (each.predictor or shared.journal.predictor for each in devices)
        }.values()
        self._reasons: Sequence[PauseReason] = ()
        for feeder in self._all:
            feeder.meet(self._all)

    def start(self, threads: Threads) -> list[threading.Thread]:
        return [
            threads.spawn(f"feeder-{number}", feeder.work)
            for number, feeder in enumerate(self._all)
        ]

    # ---- what is asked -------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """How many take jobs."""
        return sum(feeder.is_available for feeder in self._all)

    def offer(self, offer: Offer) -> Offer:
        """As far as those can do it that take jobs."""
        able = [feeder for feeder in self._all if feeder.is_available]
        models = tuple(name for name in offer.models if any(each.has(name) for each in able))
        return replace(offer, models=models, threads=max(1, len(able)))

    @property
    def states(self) -> tuple[DeviceState, ...]:
        """What each of them does, in the order of the configuration."""
        return tuple(_state(feeder, self._reasons) for feeder in self._all)

    @property
    def are_running(self) -> bool:
        """Whether any engine runs."""
        return any(feeder.is_running for feeder in self._all)

    @property
    def silent_seconds(self) -> float:
        """Of the engine that has said nothing for the longest time."""
        return max(feeder.silent_seconds for feeder in self._all)

    def expected_seconds(self, work: Work) -> float:
        """What it will probably take on the slowest of them; infinite where that is not known."""
        known = [feeder.seconds(work) for feeder in self._all]
        return max(inf if seconds is None else seconds for seconds in known)

    def late_ones(self, waiting: Sequence[Work], within: float) -> list[Work]:
        """Which of these would not be made within so many seconds."""
        if within == inf:
            return []
        return late_ones(waiting, [each for each in self._all if not each.is_out], within)

    # ---- what is told --------------------------------------------------------------------------

    def prepare(self, work: Work) -> None:
        """Have the files read that a job needs. One process does: all share what it has read."""
        able = [each for each in self._all if each.is_available and each.serves(work)]
        if able:
            min(able, key=lambda each: each.seconds_to_have(work.model.name)).prepare(work)

    def rest(self, reasons: Sequence[PauseReason]) -> Sequence[PauseReason]:
        """Pause those devices that a reason is for; the reasons for all of them at once."""
        self._reasons = reasons
        usable = [each for each in self._all if not each.is_out]
        if usable and {each.name for each in usable} <= {it.device for it in reasons}:
            return reasons
        for feeder in self._all:
            kinds = (reason.kind for reason in reasons if reason.device == feeder.name)
            feeder.rest(max(kinds, default=PauseKind.none) if feeder.name else PauseKind.none)
        return [reason for reason in reasons if not reason.device]

    def leave_devices(self) -> bool:
        """At once; whether that is news."""
        return any([feeder.leave_device() for feeder in self._all])

    def hurry_up(self) -> None:
        for feeder in self._all:
            feeder.hurry_up()

    def stop_by(self, moment: float) -> None:
        """Make no job that would not be done by then (elapsed_seconds())."""
        for feeder in self._all:
            feeder.stop_by(moment)

    def end_start(self) -> None:
        """What is still starting does so for nothing."""
        for feeder in self._all:
            feeder.end_start()

    def kill(self) -> None:
        for feeder in self._all:
            feeder.kill()

    def end(self) -> None:
        """Once their threads have ended: all devices are free."""
        for feeder in self._all:
            feeder.end()

    def keep_seconds(self) -> None:
        """What was learnt of the seconds of jobs goes to the disk."""
        for predictor in self._predictors:
            predictor.keep()


def _state(feeder: Feeder, reasons: Sequence[PauseReason]) -> DeviceState:
    share, work = feeder.device.share, next(iter(feeder.at_work), None)
    card = share.card if share else None
    own = [it.told for it in reasons if it.device and it.device == feeder.name]
    if work:
        doing = "working"
    elif feeder.is_out:
        doing = "out"
    elif any(it.device in ("", feeder.name) for it in reasons):
        doing = "paused"
    else:
        doing = "starting" if feeder.is_starting else "waiting"
    return DeviceState(
        name=feeder.name or (share.name if share else "") or "the processor",
        number=card.number if card else "",
        uuid=card.uuid if card else "",
        doing=doing,
        model=work.model.name if work else "",
        why="; ".join([feeder.out_why, *own] if feeder.is_out else own),
    )

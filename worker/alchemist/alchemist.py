"""The trade of an alchemist: which forms are popped when, and what becomes of each.

pop → fetch the picture → do the form → (judge, upload) → submit
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from hordelib.errors import AuxiliaryBroken
from worker.alchemist.offer import PLACES, OfferedForms, Place
from worker.alchemist.solving import Solving
from worker.clock import elapsed_seconds
from worker.horde.api import State
from worker.horde.client import HordeClient
from worker.horde.forms import Form, FormOffer, FormSubmission
from worker.horde.kinds import Kind, PoppedTasks
from worker.jobs.results import Failed, Solved
from worker.line.delivery import Delivery
from worker.line.gaps import PictureLine

log = logging.getLogger(__name__)

AT_ONCE = 4  # forms in hand: with three minutes for each, none waits long for the others
QUIET_SECONDS = 60.0  # without a picture in hand, until several forms of the device are asked for
DEVICE_SECONDS = 60.0  # of the device, that may be before a form, or of other forms


class Alchemist:
    """What a Companion does where it serves forms.

    Args:
        offer: of these forms and so many of them; `forms` says which there are.
    """

    kind = Kind.form
    at_pause = ""
    at_once = lanes = AT_ONCE  # those that wait for the device keep none from being done beside it

    def __init__(
        self,
        horde: HordeClient,
        forms: OfferedForms,
        offer: Callable[[OfferedForms, int], FormOffer],
        solving: Solving,
    ):
        self._horde = horde
        self._forms = forms
        self._offer = offer
        self._solving = solving
        self.hurry = solving.hurry
        self.name = offer(forms, 1).name
        self._over_at = dict[str, float]()  # of the forms in hand that need the device
        self._picture_at = -inf  # when one was last in hand

    @property
    def room(self) -> int:
        """All at once, so that forms come that can be done together; but what waits for the device
        keeps none from coming that is done beside it."""
        return 1 if self._for_device_in_hand() else AT_ONCE

    def pop(self, line: PictureLine, amount: int) -> PoppedTasks[Form] | None:
        """Forms that need the device are asked for as many as will have it in time."""
        for_device = self._for_device(line, amount)
        forms = self._forms.known_to(self._horde.words, with_device=for_device > 0)
        if not forms.forms:
            return None
        popped = self._horde.pop_forms(self._offer(forms, for_device or amount))
        for form in popped.tasks:
            if PLACES.get(form.form) is Place.device:
                self._over_at[form.id] = form.over_at
        return popped

    def _for_device(self, line: PictureLine, amount: int) -> int:
        """While pictures come, one after the other, which gets its turn among them."""
        in_hand = self._for_device_in_hand()
        if line.in_hand:
            self._picture_at = elapsed_seconds()
        if elapsed_seconds() - self._picture_at < QUIET_SECONDS:
            return 1 if not in_hand and line.seconds_ahead < DEVICE_SECONDS else 0
        each = line.gaps.turn_seconds
        most = max(1, int(DEVICE_SECONDS / each)) if each else 1  # nothing is known of it yet
        return max(0, min(amount, most - in_hand))

    def _for_device_in_hand(self) -> int:
        now = elapsed_seconds()
        return sum(over_at > now for over_at in list(self._over_at.values()))

    def outcome(self, task: Form, line: PictureLine, delivery: Delivery) -> Solved | Failed:
        """A form whose file is broken is offered no more until the next start."""
        try:
            return self._solving.outcome(task, line.gaps, delivery)
        except AuxiliaryBroken as broken:
            control_type = str(task.payload.get("control_type", ""))
            self._forms = self._forms.without(task.form, control_type)
            log.error("%s is not offered until the next start: %s", task.form, broken)
            raise
        finally:
            self._over_at.pop(task.id, None)

    def submission(self, label: str, outcome: Solved | Failed) -> FormSubmission:
        match outcome:
            case Solved(slot, value):
                return FormSubmission(slot.id, label, State.OK, value)
            case Failed(slot):
                return FormSubmission(slot.id, label, State.FAULTED)

    def owed(self, debt: object) -> Form | None:
        return debt if isinstance(debt, Form) else None

    def stop(self) -> None:
        self._solving.stop()

    def kill(self) -> None:
        self._solving.kill()

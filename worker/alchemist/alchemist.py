"""The trade of an alchemist: which forms are popped when, and what becomes of each.

pop → fetch the picture → do the form → (judge, upload) → submit
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hordelib.errors import AuxiliaryBroken
from worker.alchemist.offer import OfferedForms
from worker.alchemist.solving import Solving
from worker.horde.api import Slot, State
from worker.horde.client import HordeClient
from worker.horde.forms import Form, FormOffer, FormSubmission
from worker.horde.kinds import Kind, PoppedTasks
from worker.jobs.results import Failed, Solved
from worker.line.delivery import Delivery
from worker.line.gaps import PictureLine

log = logging.getLogger(__name__)

AT_ONCE = 4  # forms in hand: with three minutes for each, none waits long for the others
LANES = 2  # forms done at once: one on the device, one beside it


class Alchemist:
    """What a Companion does where it serves forms.

    Args:
        offer: of these forms and so many of them; `forms` says which there are.
    """

    kind = Kind.form
    at_once, room, lanes = AT_ONCE, AT_ONCE, LANES

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

    def pop(self, line: PictureLine, amount: int) -> PoppedTasks[Form] | None:
        """Forms that need the device are asked for while no picture does."""
        forms = self._forms.known_to(self._horde.words, with_device=not line.in_hand)
        return self._horde.pop_forms(self._offer(forms, amount)) if forms.forms else None

    def outcome(self, task: Form, line: PictureLine, delivery: Delivery) -> Solved | Failed:
        """A form whose file is broken is offered no more until the next start."""
        try:
            return self._solving.outcome(task, line.gaps, delivery)
        except AuxiliaryBroken as broken:
            control_type = str(task.payload.get("control_type", ""))
            self._forms = self._forms.without(task.form, control_type)
            log.error("%s is not offered until the next start: %s", task.form, broken)
            raise

    def submission(self, slot: Slot, label: str, outcome: Solved | Failed) -> FormSubmission:
        match outcome:
            case Solved(value):
                return FormSubmission(slot.id, label, State.OK, value)
            case Failed():
                return FormSubmission(slot.id, label, State.FAULTED)

    def owed(self, debt: object) -> Form | None:
        return debt if isinstance(debt, Form) else None

    def stop(self) -> None:
        self._solving.stop()

    def kill(self) -> None:
        self._solving.kill()

"""The loop of an alchemist: forms are popped a few at a time, done, and each is submitted once.

    pop → fetch the picture → do the form → (judge, upload) → submit

It runs beside the line of pictures, with a name, a journal and counts of its own, on the same
horde client, judge, engine and ledger.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from worker.alchemist.offer import OfferedForms
from worker.alchemist.solving import Solving
from worker.backoff import Backoff
from worker.clock import elapsed_seconds
from worker.errors import HordeError, HordeOnHold, HordeUnreachable, NotAllowed
from worker.horde.api import slots_of
from worker.horde.client import HordeClient
from worker.horde.forms import Form, FormOffer
from worker.horde.kinds import Kind
from worker.jobs.journal import Journal
from worker.jobs.results import STOPPING, Failed, JobStage, Results, Solved, fault_reason
from worker.jobs.status import Obstacle, ObstacleKind, StatusView
from worker.line.delivery import Delivery, Untold
from worker.line.gaps import PictureLine
from worker.line.popper import insist_on_own_name
from worker.line.trouble import Trouble

log = logging.getLogger(__name__)

AT_ONCE = 4  # forms in hand: with three minutes for each, none waits long for the others
LANES = 2  # forms done at once: one on the device, one beside it
IDLE_SECONDS = (1.0, 4.0)  # between two empty pops: the first, the longest
TROUBLE_SECONDS = (1.0, 60.0)
UNREAD_SECONDS = 60.0  # for telling the horde of a form that could not be read
LOOK_SECONDS = 0.5


class Alchemist:
    """Serves forms until it is told to stop. A refusal of its name ends it, and no picture.

    Args:
        offer: of these forms and so many of them; `forms` says which there are.
    """

    def __init__(
        self,
        horde: HordeClient,
        forms: OfferedForms,
        offer: Callable[[OfferedForms, int], FormOffer],
        solving: Solving,
        journal: Journal,
    ):
        self._horde = horde
        self._forms = forms
        self._offer = offer
        self._solving = solving
        self._journal = journal
        self._stopping = threading.Event()
        self.hurry = solving.hurry
        self._delivery = Delivery(horde, self.hurry)
        self._idle = Backoff(*IDLE_SECONDS)
        self._trouble_delay = Backoff(*TROUBLE_SECONDS)
        self._trouble = Trouble("pops of forms failing", log, over="forms are popped again")
        self._thread: threading.Thread | None = None

    def start(self, line: PictureLine) -> None:
        self._thread = threading.Thread(
            target=self._serve, args=(line,), name="alchemist", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Take no more forms; those in hand are finished."""
        self._stopping.set()

    def abandon(self) -> None:
        """Wait for nothing any more: forms that are not done are faulted."""
        self.hurry.set()
        self._stopping.set()
        self._solving.kill()

    def join(self, seconds: float) -> bool:
        """Wait for its end so long; whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def view(self) -> StatusView:
        return self._journal.view()

    @property
    def in_hand(self) -> int:
        """Forms that were popped and have not ended."""
        return self._journal.in_hand

    def _serve(self, line: PictureLine) -> None:
        """The thread's outermost frame: what ends forms ends no pictures, and is told."""
        try:
            while not line.is_ready and not self._stopping.is_set():
                self._stopping.wait(LOOK_SECONDS)
            with ThreadPoolExecutor(LANES, "form") as lanes:
                self._settle_debts(line, lanes)
                self._introduce()
                while not self._stopping.is_set():
                    self._once(line, lanes)
        except NotAllowed as error:
            self._end(f"no forms any more: {error}. Remedy: {error.remedy}")
        except Exception as error:
            log.exception("a bug of ours ended the alchemist")
            self._end(f"no forms any more: internal error: {error}")
        finally:
            self._solving.stop()

    def _end(self, why: str) -> None:
        log.error("%s", why)
        self._journal.say(Obstacle(why, ObstacleKind.trouble))

    def _introduce(self) -> None:
        """See that the name is nobody else's. Raises NotAllowed."""
        name = self._offer(self._forms, 1).name
        while not self._stopping.is_set():
            try:
                account = self._horde.whoami()
                record = self._horde.worker_by_name(name, account)
                insist_on_own_name(account, record, Kind.form)
                log.info("alchemist %r: %s", name, ", ".join(self._forms.forms) or "no form")
                return
            except NotAllowed:
                raise
            except HordeError as error:
                self._when_failed(error)

    def _settle_debts(self, line: PictureLine, lanes: ThreadPoolExecutor) -> None:
        """What an earlier life has left: done again where the time is left, or faulted."""
        debts = self._journal.owed_forms()
        forms = [debt for debt in debts if isinstance(debt, Form)]
        for debt in debts:
            if isinstance(debt, Results):
                for image in debt.images:
                    failed = image if isinstance(image, Failed) else Failed(image.slot, STOPPING)
                    self._submit(debt.job_id, "", failed)
        self._do_all(forms, line, lanes)

    def _once(self, line: PictureLine, lanes: ThreadPoolExecutor) -> None:
        """One pop, and all that comes of it."""
        if line.is_paused:
            self._stopping.wait(LOOK_SECONDS)
            return
        forms = self._forms.known_to(self._horde.words, with_device=not line.in_hand)
        if not forms.forms:
            self._stopping.wait(self._idle.delay())
            return
        try:
            popped = self._horde.pop_forms(self._offer(forms, AT_ONCE))
        except NotAllowed:
            raise
        except HordeError as error:
            self._when_failed(error)
            return
        self._trouble.over()
        self._trouble_delay.reset()
        self._journal.say(Obstacle())
        for id, why in popped.unusable.items():
            if self._journal.fresh([id]):
                slots = slots_of((id,), ("",), elapsed_seconds() + UNREAD_SECONDS)
                self._journal.popped(slots, "")
                self._submit(id, "", Failed(slots[0], why))
        fresh = self._fresh(popped.forms)
        if not fresh:
            self._stopping.wait(self._idle.delay())
            return
        self._idle.reset()
        for form in fresh:
            self._journal.popped(form.slots, form.form, form.asked)
        self._do_all(fresh, line, lanes)

    def _fresh(self, forms: Sequence[Form]) -> list[Form]:
        """Each id once, and none that is in hand. A form that was faulted may come again."""
        by_id = {form.id: form for form in reversed(forms)}
        known = {row.job_id for row in self._journal.jobs()}
        return [form for id, form in reversed(by_id.items()) if id not in known]

    def _when_failed(self, error: HordeError) -> None:
        if isinstance(error, HordeOnHold):
            kind = ObstacleKind.maintenance if error.rc == "WorkerMaintenance" else None
            self._journal.say(Obstacle(f"on hold: {error}", kind or ObstacleKind.trouble))
            self._stopping.wait(error.retry_after_seconds)
            return
        if isinstance(error, HordeUnreachable) and error.may_have_worked:
            self._journal.lost_pop(may_be_drop=False)
        self._trouble.failed(f"forms can't be popped, trying again and again: {error}")
        self._journal.say(Obstacle(str(error), ObstacleKind.trouble))
        self._stopping.wait(self._trouble_delay.delay())

    def _do_all(self, forms: Sequence[Form], line: PictureLine, lanes: ThreadPoolExecutor) -> None:
        for done in [lanes.submit(self._do, form, line) for form in forms]:
            done.result()

    def _do(self, form: Form, line: PictureLine) -> None:
        self._journal.move(form.id, JobStage.running)
        try:
            outcome = self._solving.outcome(form, line.gaps, self._delivery)
        except Exception as error:  # noqa: BLE001 - the form's boundary
            outcome = Failed(form.slots[0], fault_reason(error))
        self._submit(form.id, form.form, outcome)

    def _submit(self, id: str, name: str, outcome: Solved | Failed) -> None:
        """Each form ends here, once; without an end where that of the worker comes first."""
        end = None
        row = next(each for each in self._journal.jobs() if each.job_id == id)
        try:
            if isinstance(outcome, Failed):
                self._journal.failed(outcome)
            self._journal.move(id, JobStage.delivering)
            end = self._delivery.submit_form(row.slots[0], name, outcome)
        except Untold:
            pass
        finally:
            self._journal.ended(id, row.slots[0].id, end)

"""What forms cost the pictures beside them: seconds from pop to submit, as the horde sees it.

Pictures are asked for one at a time, in turn without any form and a moment after a queue of forms,
which fill the gap before it. A picture may wait for the form at work, so that it takes at most one
form longer; where the device is the processor, the forms beside it take their part of that, too.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure.horde import ServedHorde, Settled, served_horde
from benchmarks.measure.model_files import MODELS
from benchmarks.measure.worker import serving
from benchmarks.measure.workloads import PLAIN
from benchmarks.results.frame import Bench, positive
from hordelib.alchemy.device_forms import ANNOTATION
from hordelib.alchemy.plain_forms import PLAIN_FORMS
from hordelib.demo_model import ensure_checkpoint
from hordelib.files.model import Model
from worker.demo.model_files import UPSCALER, add_upscaler
from worker.demo.run import CLIENT_KEY, Client, demo_config
from worker.demo.sample_forms import FormWish
from worker.demo.sample_requests import Wish
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.line.bridge import Bridge
from worker.models.opening import Models
from worker.sandbox import ReferenceModel
from worker.service.assembly import OURS, Children, make_bridge

MODEL = "a model"
SIDE = 512  # of the forms' picture
WAITING = 18  # forms that are asked for before a picture: more than are done until it is
PAUSE_SECONDS = 2.0  # before a picture, at most
WARM_UP = 2
LOOK_SECONDS = 0.05  # between two looks whether something is done
GOLDEN = 0.618  # its multiples are spread evenly over 0 to 1, however many there are
FORMS = (
    FormWish(UPSCALER, "", side=SIDE),
    FormWish(ANNOTATION, "", {"control_type": "canny"}, side=SIDE),
    *(FormWish(form, "", side=SIDE) for form in (*PLAIN_FORMS, "nsfw")),
)


@dataclass(frozen=True, slots=True)
class Row:
    """`what`: pictures or one form; `beside`: what else the worker had to do meanwhile."""

    what: str
    beside: str
    count: int
    faulted: int
    p50_seconds: float
    p95_seconds: float
    slowest_seconds: float
    others: int  # of what was beside, that were done


class _Client:
    """Asks for one thing after the other, and says what became of it."""

    def __init__(self, horde: ServedHorde, bridge: Bridge):
        self._horde, self._bridge = horde, bridge
        self._client = Client(horde.url(), CLIENT_KEY)
        self._numbers = itertools.count()

    def picture(self) -> Settled:
        number = next(self._numbers)
        time.sleep(number * GOLDEN % 1 * PAUSE_SECONDS)
        before = len(self._horde.settled())
        self._client.post(Wish(f"a red circle, number {number}", PLAIN, model=MODEL))
        return self._after(before, self._horde.settled)

    def form(self, wish: FormWish) -> Settled:
        before = len(self._horde.forms_settled())
        self._client.post_forms(wish)
        return self._after(before, self._horde.forms_settled)

    def picture_beside_forms(self) -> tuple[Settled, int]:
        """And how many of the forms were done meanwhile."""
        before = len(self._horde.forms_settled())
        for wish in itertools.islice(itertools.cycle(FORMS), WAITING):
            self._client.post_forms(wish)
        settled = self.picture()
        done = len(self._horde.forms_settled()) - before
        while self._horde.open_forms():
            self._wait()
        return settled, done

    def _after(self, before: int, settled: Callable[[], list[Settled]]) -> Settled:
        while len(found := settled()) <= before:
            self._wait()
        return found[before]

    def _wait(self) -> None:
        if self._bridge.failure is not None:
            raise self._bridge.failure
        time.sleep(LOOK_SECONDS)


def measure(
    checkpoint: Path, count: int, children: Children = OURS, *, warm_up: int = WARM_UP
) -> Iterator[Row]:
    """`count` of each form, and as many pictures without forms and beside them."""
    reference = {MODEL: ReferenceModel("stable diffusion 1")}
    with tempfile.TemporaryDirectory() as folder, served_horde(reference) as horde:
        bridge = _bridge(horde.url(), Path(folder), checkpoint, children)
        with serving(bridge):
            client = _Client(horde, bridge)
            for _ in range(warm_up):
                client.picture()
                for wish in FORMS:
                    client.form(wish)
            for wish in FORMS:
                yield _row(wish.form, "nothing", [client.form(wish) for _ in range(count)], 0)
            pairs = [(client.picture(), client.picture_beside_forms()) for _ in range(count)]
            yield _row("pictures", "nothing", [alone for alone, _ in pairs], 0)
            done = sum(done for _, (_, done) in pairs)
            yield _row("pictures", "forms", [settled for _, (settled, _) in pairs], done)


def _row(what: str, beside: str, found: Sequence[Settled], others: int) -> Row:
    taken = [each.taken_seconds for each in found]
    p50, p95 = (float(each) for each in np.percentile(taken, (50, 95)))
    faulted = sum(each.is_faulted for each in found)
    return Row(what, beside, len(found), faulted, p50, p95, max(taken), others)


def _bridge(url: str, home: Path, checkpoint: Path, children: Children) -> Bridge:
    add_upscaler(home / "models")
    config = demo_config(url, models=(MODEL,), others={"alchemist_name": "an alchemist"})
    models = Models({MODEL: Model.of_checkpoint(checkpoint, MODEL)}, ())
    journal = Journal(Ledger(home / "state" / LEDGER))
    return make_bridge(config, home, models, journal, children=children)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=positive, help="of each thing that is measured (20)")


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    yield from measure(ensure_checkpoint(MODELS), options.count or (5 if options.quick else 20))


BENCH = Bench(
    name="forms",
    help="what forms of alchemy take, and cost the pictures beside them",
    add_arguments=_add_arguments,
    rows=_rows,
    count=lambda _: len(FORMS) + 2,
)

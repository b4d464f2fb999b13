"""A worker whose engine and judge are simulated: they only take their time. All else is real.

`python -m benchmarks.measure.simulated HOME CHECKPOINT URL DEVICES JOB_MS QUEUE` serves the
horde at URL with so many devices until a signal.
"""

from __future__ import annotations

import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure.simulated_children import ANY_NUMBER, engine, judge
from hordelib.files.model import Model
from worker.children.signals import StopSignals
from worker.demo.run import demo_config
from worker.jobs.journal import Journal
from worker.jobs.ledger import FILE as LEDGER
from worker.jobs.ledger import Ledger
from worker.models.opening import Models
from worker.service.assembly import Children, make_bridge, make_predictor
from worker.service.logs import set_up_logging
from worker.service.serve import serve
from worker.service.terminal import PlainView, make_console

MODEL = "simulated model"


def children(job_seconds: float, devices: int = 1) -> Children:
    """In the place of a worker's own; jobs may fail as they like."""
    mains: dict[str, Any] = {"engine": partial(engine, job_seconds), "judge": judge}
    return Children(**mains, processors=devices, most_drops=ANY_NUMBER)


def run(home: Path, checkpoint: Path, url: str, devices: int, job_ms: int, queue_size: int) -> None:
    """Until a signal. `queue_size` may be more than an owner may set."""
    config = demo_config(url, models=(MODEL,)).model_copy(update={"queue_size": queue_size})
    models = Models({MODEL: Model.of_checkpoint(checkpoint, MODEL)}, ())
    console, state = make_console(), home / "state"
    set_up_logging(console, home / "logs" / "dreamer.log")
    with closing(Ledger(state / LEDGER)) as ledger:
        journal = Journal(ledger, ANY_NUMBER, make_predictor(state))
        simulated = children(job_ms / 1000, devices)
        bridge = make_bridge(config, home, models, journal, children=simulated)
        serve(bridge, PlainView(journal), signals=StopSignals.caught())


if __name__ == "__main__":
    _home, _checkpoint, _url, *_numbers = sys.argv[1:]
    run(Path(_home), Path(_checkpoint), _url, *map(int, _numbers))

"""The forms of alchemy that the benchmark `engine` runs: those whose files are there.

The judge's form, nsfw, is measured by the benchmark `judge`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from benchmarks.measure.engine_jobs import SCENE, Job
from benchmarks.measure.model_files import MODELS
from hordelib import Engine, Generation
from hordelib.alchemy.device_forms import ANNOTATION, NO_MODEL, device_params
from hordelib.alchemy.plain_forms import PLAIN_FORMS
from hordelib.demo_model.shapes import draw
from hordelib.job.batching import Member
from hordelib.job.control_types import ControlType, files_of
from hordelib.job.images import SourceImage
from hordelib.job.post_processors import POST_PROCESSORS, missing, served
from hordelib.job.questions import Topic, lacking

SIDES, QUICK_SIDES = (512, 1024), (512,)


def form_jobs(options: argparse.Namespace) -> tuple[Job, ...]:
    """Each form at each size; of the annotators, --quick measures one."""
    controls = [kind for kind in ControlType if not _lacks(kind)]
    kinds = [
        *((form, "") for form in PLAIN_FORMS),
        *((form, "") for form in POST_PROCESSORS if form in served(MODELS)),
        *((topic.value, "") for topic in Topic if not lacking(MODELS, topic)),
        *((ANNOTATION, str(control)) for control in controls[: 1 if options.quick else None]),
    ]
    return tuple(
        Job(side, side, steps=1, sampler="", form=form, control=control)
        for form, control in kinds
        for side in (QUICK_SIDES if options.quick else SIDES)
    )


def forms_left_out() -> Iterator[str]:
    """What is not measured for want of files."""
    left_out = [*missing(MODELS), *(topic.value for topic in Topic if lacking(MODELS, topic))]
    if left_out:
        yield f"forms {', '.join(left_out)}: not measured without their files in {MODELS}"


def run_form(engine: Engine, job: Job, seed: int) -> tuple[float, Generation]:
    """Seconds, and what the engine says of it; nothing of a form that is done beside it.

    Each run has a picture of its own, so that none is known from the run before.
    """
    picture = draw(SCENE, job.width)
    picture.putpixel((0, 0), (seed % 256, seed // 256 % 256, 0))
    image = SourceImage.of_pil(picture)
    if plain := PLAIN_FORMS.get(job.form):
        started = time.perf_counter()
        plain(image)
        seconds = time.perf_counter() - started
        return seconds, Generation((), load_seconds=0.0, run_seconds=seconds)
    params = device_params(job.form, image, MODELS, job.control)
    (generation,) = engine.generate_together([Member("form", params)], NO_MODEL)
    return generation.run_seconds, generation


def _lacks(control: ControlType) -> bool:
    return not all(file.is_there for file in files_of(MODELS, control, net=False))

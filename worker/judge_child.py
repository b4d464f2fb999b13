"""The child process that judges pictures: it owns the judges' models, and runs nothing else."""

from __future__ import annotations

import logging
from multiprocessing.connection import Connection

from hordelib.horde_safety_judge import HordeSafetyJudge
from hordelib.images import Picture
from hordelib.nudenet_judge import NudeNetJudge
from hordelib.safety import Bench, Judge
from worker.child import Child, set_up_process
from worker.messages import Asked, Judged, JudgeSettings, Ready, Unjudged

HEARTBEAT_SECONDS = 5.0  # fewer than an engine's: an owner isn't shown how long it is silent

log = logging.getLogger(__name__)


def main(pipe: Connection, settings: JudgeSettings) -> None:
    """The spawned process: returns when told to stop, exits when the bridge is gone."""
    set_up_process(settings.log_file)
    child = Child(pipe, HEARTBEAT_SECONDS)
    try:
        judge = load_judges(settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the bridge has to be told
        child.give_up(error)
    child.report(Ready(judge.name))
    for asked in child.commands():
        child.report(answer(judge, asked))


def load_judges(settings: JudgeSettings) -> Judge:
    judges: list[Judge] = [NudeNetJudge()]
    if settings.horde_safety:
        judges.append(HordeSafetyJudge(settings.models))
    return Bench(judges)


def answer(judge: Judge, asked: Asked) -> Judged | Unjudged:
    """Whatever goes wrong with a picture is said about that picture."""
    try:
        verdict = judge.judge(Picture.of_file(asked.webp, seed=0), asked.prompt)
    except Exception as error:
        log.warning("job %s, image %d: no verdict", asked.job_id, asked.index, exc_info=True)
        return Unjudged(asked.job_id, asked.index, f"{type(error).__name__}: {error}")
    return Judged(asked.job_id, asked.index, verdict)

"""The child process that judges pictures: it owns the judges' models, and runs nothing else.

It leaves the device, the network and most of the cores alone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from hordelib.job.images import Picture
from hordelib.safety.csam import HordeSafetyJudge
from hordelib.safety.nudenet import NudeNetJudge
from hordelib.safety.verdict import Judge, JudgePanel
from worker.children.child_side import Child, leave_no_semaphore, set_up_process
from worker.children.messages import Asked, Judged, JudgeSettings, Ready, Unjudged

HEARTBEAT_SECONDS = 5.0  # fewer than an engine's: an owner isn't shown how long it is silent
MOST_THREADS = 4  # more of them make a picture's verdict hardly faster
MOST_JUDGES = 4  # each takes 3.5 GB of main memory with horde_safety

log = logging.getLogger(__name__)


def main(
    pipe: Connection,
    settings: JudgeSettings,
    load: Callable[[JudgeSettings], Judge] | None = None,
) -> None:
    """The spawned process: exits when told to stop, or when the bridge is gone."""
    set_up_process(settings.log_file)
    keep_out_of_the_way()
    if settings.horde_safety:
        leave_no_semaphore()
    child = Child(pipe, HEARTBEAT_SECONDS)
    try:
        judge = (load or load_judges)(settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the bridge has to be told
        child.give_up(error)
    child.report(Ready(judge.name))
    for asked in child.commands():
        child.report(answer(judge, asked))
    child.leave()


def keep_out_of_the_way() -> None:
    """What torch, OpenCV and Hugging Face's packages read when they are imported, later on."""
    threads = str(thread_count(len(cores())))
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "",  # not even a context of some hundred MB on the card
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENCV_FOR_THREADS_NUM": threads,
        "HF_HUB_OFFLINE": "1",
        "LOGURU_LEVEL": "WARNING",  # what horde_safety tells of itself
    }


def thread_count(cores: int) -> int:
    """With how many threads each network computes: half of the cores stay the engine's."""
    return max(1, min(MOST_THREADS, cores // 2))


def judge_count(devices: int, cores: int) -> int:
    """One for each device, as far as half of the cores have MOST_THREADS for each of them."""
    return max(1, min(devices, MOST_JUDGES, cores // 2 // MOST_THREADS))


def cores() -> set[int]:
    """Those that this process may run on."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def load_judges(settings: JudgeSettings) -> Judge:
    judges: list[Judge] = [NudeNetJudge(thread_count(len(cores())))]
    if settings.horde_safety:
        judges.append(HordeSafetyJudge.load(settings.models))
    return JudgePanel(judges)


def answer(judge: Judge, asked: Asked) -> Judged | Unjudged:
    """Whatever goes wrong with a picture is said about that picture."""
    try:
        verdict = judge.judge(Picture.of_file(asked.webp, seed=0), asked.prompt)
    except Exception as error:
        log.warning("job %s, image %d: no verdict", asked.job_id, asked.index, exc_info=True)
        return Unjudged(asked.job_id, asked.index, f"{type(error).__name__}: {error}")
    return Judged(asked.job_id, asked.index, verdict)

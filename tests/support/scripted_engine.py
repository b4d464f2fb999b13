"""An engine's child without ComfyUI, which does what the job's prompt says.

"" makes pictures at once; "slow" takes 50 ms a step, and "stuck" a second; "kill" ends the process
with SIGKILL, and so do a LoRA or a textual inversion that is called "bad", and every job of a model
called DEADLY. "lost" ends it as a card does that fails, and so does a LoRA that is called "loser";
"kernels" as one that torch has no kernels for. "fail" fails the job, and so do a LoRA that is
called "odd", and every job of a model called BROKEN. "wide" is made in 32 bits. The pictures are
plain, of a colour that follows from their seeds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from threading import Event, Thread

from hordelib.engine import Generation
from hordelib.errors import Cancelled, DeviceFault, DeviceUnusable, GenerationFailed
from hordelib.job.batching import Member
from hordelib.job.images import Picture
from hordelib.job.params import GenerationParams
from worker.children.child_side import Child, set_up_process
from worker.children.messages import (
    Cancel,
    Drawn,
    EngineSettings,
    Failed,
    Finished,
    Generate,
    Ready,
    Stepped,
)

STEP_SECONDS = 0.05
DEADLY, BROKEN = "Deadly", "Broken"
SLOW_WIDTH = 192  # pixels: as slow as the word "slow" in the prompt


def main(pipe: Connection, settings: EngineSettings) -> None:
    set_up_process(settings.log_file)
    child = Child(pipe)
    child.report(Ready("a script"))
    cancelled = Event()
    for command in child.commands():
        match command:
            case Cancel():
                cancelled.set()
            case Generate():
                cancelled.clear()
                Thread(target=_generate, args=(child, command, cancelled)).start()
            case _:
                pass


def _generate(child: Child, job: Generate, cancelled: Event) -> None:
    params = job.members[0].params
    words = params.prompt.split() + ["slow"] * (params.width == SLOW_WIDTH)
    for step in range(1, params.steps + 1):
        if _kills(params) or job.model.name == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if "lost" in words or any(lora.name == "loser" for lora in params.loras):
            child.give_up(DeviceFault("the card failed in sampler: unspecified launch failure"))
        if "kernels" in words:
            child.give_up(DeviceUnusable("no kernels for this card: run ./update-runtime.sh"))
        if _fails(params) or job.model.name == BROKEN:
            child.report(Failed(job.number, GenerationFailed("sampler: shapes differ")))
            return
        cancelled.wait(STEP_SECONDS * ("slow" in words) + 20 * STEP_SECONDS * ("stuck" in words))
        child.report(Stepped(job.number, step, params.steps))
        if cancelled.is_set():
            child.report(Failed(job.number, Cancelled("stopped on request")))
            return
    for picture in _pictures(job):
        child.report(Drawn(job.number, picture))
    seconds = STEP_SECONDS * params.steps
    was_wide = "wide" in words
    generations = tuple(Generation((), 0.0, seconds, was_wide=was_wide) for _ in job.members)
    child.report(Finished(job.number, generations))


def _kills(params: GenerationParams) -> bool:
    is_bad = any(lora.name == "bad" for lora in params.loras) or "embedding:bad" in params.prompt
    return is_bad or "kill" in params.prompt.split()


def _fails(params: GenerationParams) -> bool:
    return any(lora.name == "odd" for lora in params.loras) or "fail" in params.prompt.split()


def _pictures(job: Generate) -> Iterator[Picture]:
    for member in job.members:
        yield from _pictures_of(member)


def _pictures_of(member: Member) -> Iterator[Picture]:
    params = member.params
    for index in range(params.images):
        colour = (params.seed + index).to_bytes(8)[-3:]
        pixels = colour * (params.width * params.height)
        yield Picture(
            params.width,
            params.height,
            pixels,
            params.image_seed(index),
            job_id=member.job_id,
            index=index,
        )

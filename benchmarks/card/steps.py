"""The steps of a trial of a card, one a process: `python -m benchmarks.card.steps NAME FOLDER`.

Each says what it finds as it goes. Engines are closed by the end of the process.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.card.host import busy_thread, launch_us, ring_seconds
from benchmarks.card.layouts import sd1, sdxl
from benchmarks.card.random_models import random_lora, write_random
from benchmarks.card.trial import (
    MIB,
    TINY,
    NotHere,
    Trial,
    apart,
    median_seconds,
    seconds_of,
    step_ms,
)
from benchmarks.measure.machine import PROJECT
from benchmarks.peers import comfy_executor
from benchmarks.peers.protocol import Job, Setup
from hordelib import Engine, Generation, GenerationParams
from hordelib.comfyui.boot import boot
from hordelib.comfyui.device import default_folder
from hordelib.demo_model import ensure_lora
from hordelib.files.model import Model
from hordelib.job.batching import Member
from hordelib.job.params import Lora
from worker.devices import first_card

COPIED_BYTES, TINY_COPIED_BYTES = 1 << 30, 1 << 22
GPU_TESTS = "tests/hordelib/comfyui/test_gpu.py"
SOAK_SECONDS, TINY_SOAK_SECONDS = 45, 2
cuda: Any = torch.cuda  # its types are incomplete


def facts(trial: Trial) -> None:
    trial.say("torch", torch.__version__)
    card = first_card()
    if trial.device != "cpu" and card is not None:
        free_bytes = card.free_bytes
        torch.zeros(1, device=trial.device)
        cuda.synchronize()
        after = first_card()
        trial.say("card", f"{card.name}, {card.capability}, driver {card.driver}")
        trial.say("kernels of torch", " ".join(cuda.get_arch_list()))
        trial.say("memory", card.memory_bytes / MIB, "MiB")
        trial.say("CUDA's own part", (free_bytes - after.free_bytes) / MIB if after else 0, "MiB")
    copied_bytes = TINY_COPIED_BYTES if trial.is_tiny else COPIED_BYTES
    for is_pinned in (False, True)[: 2 if trial.device != "cpu" else 1]:
        source = torch.ones(copied_bytes, dtype=torch.uint8, pin_memory=is_pinned)
        into = torch.empty(copied_bytes, dtype=torch.uint8, device=trial.device)
        taken = median_seconds(partial(_copied, into, source), 3)
        trial.say(
            f"copy of {'pinned' if is_pinned else 'pageable'} memory",
            copied_bytes / taken / 1e9,
            "GB/s",
        )
    trial.say("launch of a kernel, on the host", launch_us(trial.device), "µs")
    for interval_ms in (5, 0.1):
        with busy_thread(interval_ms / 1000):
            name = f"the same beside a busy thread, switched every {interval_ms} ms"
            trial.say(name, launch_us(trial.device), "µs")
    for threads in (1, 2, 4) if trial.device != "cpu" else ():
        taken = ring_seconds(trial.folder / "ring", copied_bytes, threads, trial.device)
        name = f"copy of a mapped file through a pinned ring, {threads} readers"
        trial.say(name, copied_bytes / taken / 1e9, "GB/s")


def _copied(into: torch.Tensor, source: torch.Tensor, _: int) -> None:
    into.copy_(source, non_blocking=True)
    if into.device.type != "cpu":
        cuda.synchronize()


def models(trial: Trial) -> None:
    """Makes the checkpoints that the others use."""
    if trial.is_tiny:
        trial.say(TINY, trial.model(TINY).stat().st_size / MIB, "MiB")
        return
    boot(default_folder(), trial.device)
    for kind in trial.kinds:
        path = trial.folder / f"{kind}.safetensors"
        started = time.perf_counter()
        size_bytes = write_random(path, kind, trial.device)
        trial.say(f"{kind}, made in", time.perf_counter() - started, "s")
        trial.say(kind, size_bytes / MIB, "MiB")


def tests(trial: Trial) -> None:
    """Those that need a card; each one that fails is named."""
    trial.insist_on_card()
    command = [sys.executable, "-P", "-m", "pytest", "-m", "gpu", GPU_TESTS, "-q", "-rfEs"]
    command += ["--tb=line", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if "No module named pytest" in done.stderr:
        raise NotHere("pytest is not installed: ./horde-bridge.sh test --version installs it")
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "ERROR", "SKIPPED")):
            trial.say("test", line[:200])
    trial.say("all", lines[-1] if lines else "nothing was told")


def pictures(trial: Trial) -> None:
    """Seconds, step and memory of batches, after one job that reads the model."""
    for kind in trial.kinds:
        engine, model = trial.engine(), trial.model(kind)
        first = seconds_of(partial(engine.generate, trial.job(kind, "first"), model))
        trial.say(f"{kind}, first job", first, "s")
        for images in (1, 4, 8) if kind == "sd15" else (1, 2, 4):
            made = [
                engine.generate(trial.job(kind, f"{i} of {images}", images=images, seed=i), model)
                for i in range(4)
            ]
            taken = sorted(each.run_seconds for each in made[1:])[1]
            name = f"{kind}, batch of {images}"
            trial.say(name, images / taken, "pictures/s")
            trial.say(f"{name}, a step", step_ms(made[-1], trial.job(kind, "").steps), "ms")
            trial.say(f"{name}, predicted", made[-1].predicted_bytes / MIB, "MiB")
            trial.say(f"{name}, measured", made[-1].measured_bytes / MIB, "MiB")


def plain(trial: Trial) -> None:
    """ComfyUI's own nodes, executor and defaults on the same models and jobs."""
    trial.model(trial.kinds[0])
    setup = Setup(str(default_folder()), str(trial.folder), str(trial.folder))
    with comfy_executor.start(setup) as executor:
        for kind in trial.kinds:
            for images in (1, 4, 8) if kind == "sd15" else (1, 2, 4):
                turn = partial(_plain_turn, executor, trial, kind, images)
                taken = median_seconds(turn, 3)
                trial.say(f"{kind}, batch of {images}", images / taken, "pictures/s")


def _plain_turn(
    executor: comfy_executor.Executor, trial: Trial, kind: str, images: int, seed: int
) -> None:
    job = trial.job(kind, f"{seed} of {images}")
    sides = (job.width, job.height)
    name = trial.model(kind).name
    executor.make([Job(name, job.prompt, "", seed, *sides, job.steps, job.cfg, images)])


def merged(trial: Trial) -> None:
    """Four jobs of different clients, one by one and in one batch."""
    for kind in trial.kinds:
        engine, model = trial.engine(), Model.of_checkpoint(trial.model(kind))
        warm, first, second = (_clients(trial, kind, seed) for seed in (100, 200, 300))
        shared = engine.generate_together(warm, model)
        alone = _one_by_one(engine, warm, model)
        told = apart(shared[3].images[0], alone[3].images[0])
        trial.say(f"{kind}, the last of 4 against alone", told)
        one_by_one = seconds_of(partial(_one_by_one, engine, first, model))
        together = seconds_of(partial(engine.generate_together, second, model))
        trial.say(f"{kind}, 4 jobs in one batch", one_by_one / together, "times as fast")


def _clients(trial: Trial, kind: str, seed: int) -> list[Member]:
    jobs = [trial.job(kind, f"of client {i}", seed=seed + i, cfg=5.0 + i) for i in range(4)]
    return [Member(str(i), job) for i, job in enumerate(jobs)]


def _one_by_one(engine: Engine, members: Sequence[Member], model: Model) -> list[Generation]:
    return [engine.generate(each.params, model) for each in members]


def equal(trial: Trial) -> None:
    """The same job before and after other work, an eviction and in a batch."""
    for kind in trial.kinds:
        engine, model = trial.engine(), trial.model(kind)
        job = trial.job(kind, "again and again", seed=5)
        first = engine.generate(job, model).images[0]
        batch = engine.generate(replace(job, seed=4, images=3), model).images[1]
        trial.say(f"{kind}, image of a batch against alone", apart(batch, first))
        engine.generate(trial.job(kind, "another one"), trial.model(kind, 1))
        trial.say(
            f"{kind}, after another model", apart(engine.generate(job, model).images[0], first)
        )
        engine.close()
        trial.say(
            f"{kind}, in a new engine", apart(trial.engine().generate(job, model).images[0], first)
        )


def switch(trial: Trial) -> None:
    """Two models in turn where there is room for both, and where there is not."""
    for kind, room_gib in zip(trial.kinds, (4, 9), strict=False):
        rooms: dict[str, dict[str, int]] = {"room for both": {}}
        if trial.device != "cpu" and not trial.is_tiny:
            reserve_bytes = max(1 << 30, trial.free_bytes() - (room_gib << 30))
            rooms[f"room of {room_gib} GiB"] = {"vram_reserve_bytes": reserve_bytes}
        for name, options in rooms.items():
            engine = trial.engine(**options)
            turn = partial(_turn, engine, trial, kind)
            turn(1)
            trial.say(f"{kind}, a change of models, {name}", median_seconds(turn, 5), "s")
            engine.close()


def _turn(engine: Engine, trial: Trial, kind: str, i: int) -> None:
    engine.generate(trial.job(kind, f"turn {i}", steps=2), trial.model(kind, i % 2))


def out_of_memory(trial: Trial) -> None:
    """Most memory is taken away in the middle: batches are halved, the next job runs."""
    trial.insist_on_card()
    kind, reserve_bytes = trial.kinds[0], 400 * MIB
    engine, model = trial.engine(vram_reserve_bytes=reserve_bytes), trial.model(kind)
    engine.generate(trial.job(kind, "first"), model)
    whole = engine.generate(trial.job(kind, "whole", images=8), model)
    ballast: list[torch.Tensor] = []

    def take(done: int, _total: int) -> None:
        if done == 1 and not ballast:
            cuda.empty_cache()
            left_bytes = reserve_bytes + int(0.6 * whole.measured_bytes)
            size_bytes = trial.free_bytes() - left_bytes
            ballast.append(torch.empty(size_bytes, dtype=torch.uint8, device=trial.device))

    halved = engine.generate(trial.job(kind, "whole", images=8, seed=9), model, take)
    trial.say("pictures with 0.6 of the memory", len(halved.images))
    trial.say("times that memory ran out", float(cuda.memory_stats().get("num_ooms", 0)))
    ballast.clear()
    engine.generate(trial.job(kind, "afterwards", images=8), model)
    engine.close()
    cuda.empty_cache()
    trial.say("left on the card", cuda.memory_allocated() / MIB, "MiB")


def small_cards(trial: Trial) -> None:
    """SDXL with the budget of 8 and of 12 GiB, one job after another."""
    trial.insist_on_card()
    kind = trial.kinds[-1]
    for gib in (8, 12):
        reserve_bytes = max(1 << 30, trial.free_bytes() - (gib << 30) + (1 << 30))
        engine = trial.engine(vram_reserve_bytes=reserve_bytes)
        for i in range(4):
            work = partial(engine.generate, trial.job(kind, f"job {i}"), trial.model(kind))
            taken = seconds_of(work)
            trial.say(f"{kind} on {gib} GiB, job {i + 1}", taken, "s")
        engine.close()


def loras(trial: Trial) -> None:
    """The same LoRA again, two in turn, and one and none."""
    for kind in trial.kinds:
        engine, model = trial.engine(), trial.model(kind)
        one, other = (Lora(path.stem, path) for path in _loras(trial, kind))
        for name, order in {
            "the same LoRA": (one, one, one, one),
            "LoRAs in turn": (one, other, one, other),
            "one and none": (one, None, one, None),
        }.items():
            jobs = [
                trial.job(kind, f"{name} {i}", steps=2, loras=() if lora is None else (lora,))
                for i, lora in enumerate(order)
            ]
            taken = median_seconds(partial(_nth, engine, jobs, model), 3)
            trial.say(f"{kind}, {name}, 2 steps", taken, "s")


def _nth(engine: Engine, jobs: Sequence[GenerationParams], model: Path, i: int) -> None:
    engine.generate(jobs[i], model)


def _loras(trial: Trial, kind: str) -> Sequence[Path]:
    if kind == TINY:
        return [ensure_lora(trial.folder)] * 2
    boot(default_folder(), trial.device)
    paths = [trial.folder / f"{kind} lora {i}.safetensors" for i in range(2)]
    for path in paths:
        save_file(random_lora({"sd15": sd1, "sdxl": sdxl}[kind]()), path)
    return paths


def overhead(trial: Trial) -> None:
    kind = trial.kinds[0]
    engine, model = trial.engine(), trial.model(kind)

    def job(i: int) -> None:
        params = trial.job(kind, f"tiny {i}", width=64, height=64, steps=1)
        engine.generate(params, model)

    trial.say("a job of one step at 64 x 64", 1000 * median_seconds(job, 6), "ms")


def knobs(trial: Trial) -> None:
    """A step of the larger model with what torch may do otherwise; the first changes pictures."""
    trial.insist_on_card()
    kind = trial.kinds[-1]
    engine, model = trial.engine(), trial.model(kind)
    job, plain = trial.job(kind, "with knobs"), None
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for name, owner, knob in (
        ("as it is", None, ""),
        ("fp16 accumulation", matmul, "allow_fp16_accumulation"),
        ("cudnn.benchmark", cudnn, "benchmark"),
    ):
        if owner is not None and not hasattr(owner, knob):
            trial.say(name, "this torch has it not")
            continue
        if owner is not None:
            setattr(owner, knob, True)
        engine.generate(trial.job(kind, f"{name}, first"), model)  # which tries kernels
        made = engine.generate(job, model)
        if owner is not None:
            setattr(owner, knob, False)
        trial.say(f"{kind}, {name}, a step", step_ms(made, job.steps), "ms")
        plain = plain or made.images[0]
        trial.say(f"{kind}, {name}, against as it is", apart(made.images[0], plain))


def streamed(trial: Trial) -> None:
    """A step of the larger model with all of its weights on the card, and with half of them."""
    trial.insist_on_card()
    kind, steps = trial.kinds[-1], trial.job(trial.kinds[-1], "").steps
    size_bytes = trial.model(kind).stat().st_size
    for name, room_bytes in (("all", 2 * size_bytes), ("half", size_bytes // 2 + (2 << 30))):
        reserve_bytes = max(1 << 30, trial.free_bytes() - room_bytes)
        engine = trial.engine(vram_reserve_bytes=reserve_bytes)
        made = [
            engine.generate(trial.job(kind, f"{name} {i}"), trial.model(kind)) for i in range(2)
        ]
        trial.say(f"{kind}, {name} of the weights, a step", step_ms(made[-1], steps), "ms")
        engine.close()


def soak(trial: Trial) -> None:
    """Sizes, batches, prompts and models mixed: what stays on the card must not grow."""
    draw, kind = random.Random(1), trial.kinds[0]
    engine = trial.engine()
    seconds = TINY_SOAK_SECONDS if trial.is_tiny else SOAK_SECONDS
    end, jobs, left = time.monotonic() + seconds, 0, list[float]()
    while time.monotonic() < end:
        sides = {
            side: 64 * (draw.randint(1, 2) if trial.is_tiny else draw.randint(6, 14))
            for side in ("width", "height")
        }
        prompt = f"job {jobs} " + "word " * draw.randint(0, 150)
        job = trial.job(kind, prompt, steps=2, images=draw.randint(1, 3), seed=jobs, **sides)
        engine.generate(job, trial.model(kind, jobs % 2))
        jobs += 1
        if trial.device != "cpu" and jobs % 10 == 0:
            left.append(cuda.memory_allocated() / MIB)
    trial.say("jobs", jobs)
    engine.close()
    if left:
        trial.say("allocated after 10 jobs", left[0], "MiB")
        trial.say("allocated at the end", left[-1], "MiB")
        trial.say("allocated without models", cuda.memory_allocated() / MIB, "MiB")


STEPS: dict[str, Callable[[Trial], None]] = {
    each.__name__: each
    for each in (
        *(facts, models, tests, pictures, plain, merged, equal, switch, out_of_memory),
        *(small_cards, loras, overhead, knobs, streamed, soak),
    )
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module=r"torchsde|comfy\.k_diffusion")  # of rounding
    trial = Trial(options.folder, options.tiny)
    try:
        STEPS[options.step](trial)
    except NotHere as reason:
        trial.say("left out", str(reason))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The kinds of job that the benchmark `engine` runs, and their parameters."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure.model_files import MODELS
from hordelib import GenerationParams
from hordelib.demo_model import FILE_NAME, ensure_control_net, ensure_lora
from hordelib.demo_model.shapes import Scene, draw
from hordelib.files.model import Model
from hordelib.job.control_types import ControlType, annotator_file, control_net_file, files_of
from hordelib.job.families import Part
from hordelib.job.images import SourceImage
from hordelib.job.params import Control, Lora
from hordelib.job.samplers import SAMPLERS

CHUNK = "a red circle on a blue background, " * 8  # between one half and one chunk of 75 tokens
SCENE = Scene("circle", "red", "blue")
DEMO_SIDE, DEMO_STEPS = 128, 10  # the demo model knows no larger pictures
STEPS = 20
TOGETHER = (1, 4, 8)
QUICK_IMAGES = (2, 4)
GRAIN = 64  # pixels: sides are multiples of it


@dataclass(frozen=True, slots=True)
class Job:
    """The features of a kind of job; every kind differs from the plain one in one of them."""

    width: int = DEMO_SIDE
    height: int = DEMO_SIDE
    steps: int = DEMO_STEPS
    sampler: str = "k_euler"
    images: int = 1
    loras: int = 0
    control: str = ""
    hires_fix: bool = False
    prompt_chunks: int = 1
    form: str = ""  # of alchemy, over a picture of this size; such a job has no steps of its own
    together: int = 1  # jobs with prompts, seeds and cfg scales of their own that share the batch


@dataclass(frozen=True, slots=True)
class Files:
    """What there is to use with a model."""

    lora: Path | None
    controls: tuple[ControlType, ...]
    control_net: Path | None = None  # of all types, instead of each type's own

    @classmethod
    def of(cls, model: Model, lora: Path | None) -> Files:
        """The demo model has its own; others have what the owner names, and what is in `models`."""
        if _is_demo(model):
            net = ensure_control_net(MODELS)
            return cls(lora or ensure_lora(MODELS), tuple(_complete(net=False)), net)
        follows = Part.control in model.family.serves
        return cls(lora, tuple(_complete(net=True)) if follows else ())


def _complete(*, net: bool) -> Iterator[ControlType]:
    """The types that have their annotator's files, and their ControlNet where `net` asks for it."""
    for kind in ControlType:
        if all(file.is_there for file in files_of(MODELS, kind, net=net)):
            yield kind


def plain_job(model: Model, size: tuple[int, int] | None, steps: int | None) -> Job:
    """What its family was trained for, where nothing else is asked for."""
    is_demo = _is_demo(model)
    side = DEMO_SIDE if is_demo else model.family.native_side
    width, height = size or (side, side)
    return Job(width, height, steps or (DEMO_STEPS if is_demo else STEPS))


def kinds_of_job(options: argparse.Namespace, model: Model) -> tuple[Job, ...]:
    """Those that can be run with the files that are there, each once."""
    files = Files.of(model, options.lora)
    plain = plain_job(model, options.size, options.steps)
    sizes = _scaled(plain, 1, 2), plain
    shared = [replace(size, together=together) for size in sizes for together in TOGETHER]
    loras = [replace(plain, loras=1)] if files.lora else []
    controls = [replace(plain, control=kind) for kind in files.controls]
    if options.quick:
        batches = [replace(plain, images=images) for images in QUICK_IMAGES]
        return tuple(dict.fromkeys((*shared, *batches, *loras, *controls[:1])))
    native = replace(plain, width=model.family.native_side, height=model.family.native_side)
    sizes = (_scaled(plain, 2, 1), native)
    hires = replace(_scaled(native, 3, 2), hires_fix=True)
    kinds = (
        *shared,
        *(replace(plain, images=count) for count in range(2, options.batch + 1)),
        *(size for size in sizes if size.width > plain.width),
        *(replace(plain, sampler=name) for name in SAMPLERS if name != plain.sampler),
        *(replace(plain, prompt_chunks=count) for count in range(2, options.chunks + 1)),
        *([hires] if Part.hires_fix in model.family.serves else ()),
        *loras,
        *controls,
    )
    return tuple(dict.fromkeys(kinds))


def left_out(options: argparse.Namespace, model: Model) -> Iterator[str]:
    """What is not measured for want of files, and the remedy."""
    files = Files.of(model, options.lora)
    if files.lora is None:
        yield f"{model.name}: no LoRA is measured: name one of its family with --lora FILE"
    if Part.control not in model.family.serves:
        return
    missing = [kind for kind in ControlType if kind not in files.controls]
    if missing:
        told = f"not measured without their files in {MODELS}; docs/jobs.md says which and whence"
        yield f"{model.name}: control types {', '.join(missing)}: {told}"
    elif options.quick:
        yield f"{model.name}: of the control types, --quick measures {files.controls[0]} alone"


def params_of(kind: Job, files: Files, seed: int, cfg: float) -> GenerationParams:
    """A prompt of its own for each run, so that ComfyUI encodes it again."""
    return GenerationParams(
        prompt=f"number {seed}, " + CHUNK * kind.prompt_chunks,
        width=kind.width,
        height=kind.height,
        steps=kind.steps,
        cfg=cfg,
        sampler=SAMPLERS[kind.sampler],
        images=kind.images,
        seed=seed,
        hires_fix=kind.hires_fix,
        loras=(Lora("LoRA", files.lora),) * kind.loras if files.lora else (),
        control=_control(kind, files) if kind.control else None,
    )


def _control(kind: Job, files: Files) -> Control:
    control = ControlType(kind.control)
    return Control(
        type=control,
        image=SourceImage.of_pil(draw(SCENE, kind.width)),
        model=files.control_net or _own_net(control),
        annotator=annotator_file(MODELS, control),
    )


def _own_net(control: ControlType) -> Path:
    return control_net_file(MODELS, control)


def _scaled(job: Job, times: int, of: int) -> Job:
    """With sides of so many parts of the job's."""
    sides = (side * times // of // GRAIN * GRAIN for side in (job.width, job.height))
    width, height = (max(GRAIN, side) for side in sides)
    return replace(job, width=width, height=height)


def _is_demo(model: Model) -> bool:
    """Only its LoRA and ControlNet are here."""
    return model.main.name == FILE_NAME

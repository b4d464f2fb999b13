"""Forms that the engine does, as its jobs: no checkpoint takes part in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from hordelib.errors import InvalidParams, ModelMissing
from hordelib.files.model import Model
from hordelib.job import control_types
from hordelib.job.control_types import ControlType
from hordelib.job.families import SD1
from hordelib.job.images import Picture, SourceImage
from hordelib.job.params import MAX_SIDE, SIDE_STEP, Control, FromImage, GenerationParams
from hordelib.job.post_processors import POST_PROCESSORS, resolve
from hordelib.job.questions import Topic, ask

NO_MODEL = Model("no checkpoint", SD1, {loader.title: Path() for loader in SD1.loaders})
"""Stands for the model of a job that loads none."""

ANNOTATION = "annotation"
QUESTIONS = tuple(Topic)
"""Forms whose result is an answer; that of the others is a picture."""


def device_params(
    form: str, image: SourceImage, models: Path, control_type: str = ""
) -> GenerationParams:
    """What the engine has to do for a form over an image.

    `models` is the folder with the weights; `control_type` says what annotation draws. Raises
    InvalidParams for an unknown form or type, and ModelMissing, which names the file.
    """
    if form == ANNOTATION:
        return _annotation(image, models, control_type)
    of_source = GenerationParams(
        prompt="",
        width=_side(image.width),
        height=_side(image.height),
        seed=0,
        source=FromImage(image),
        keep_source=True,
    )
    if form in QUESTIONS:
        return replace(of_source, question=ask(models, Topic(form)))
    if form in POST_PROCESSORS:
        return replace(of_source, post_processing=resolve(models, [form]))
    names = ", ".join([*QUESTIONS, ANNOTATION, "an upscaler, a face fixer or strip_background"])
    raise InvalidParams("form", form, names)


def fitted(form: str, picture: Picture, image: SourceImage) -> Picture:
    """A control map is drawn at sides of whole steps: the client gets it in its picture's size."""
    size = (image.width, image.height)
    if form != ANNOTATION or (picture.width, picture.height) == size:
        return picture
    resized = picture.to_pil().resize(size, Image.Resampling.LANCZOS)
    return Picture(*size, resized.tobytes(), picture.seed, picture.mode)


def _annotation(image: SourceImage, models: Path, control_type: str) -> GenerationParams:
    if control_type not in list(ControlType):
        raise InvalidParams("control_type", control_type, "one of the horde's control types")
    control = ControlType(control_type)
    for file in control_types.files_of(models, control, net=False):
        if not file.is_there:
            raise ModelMissing(f"annotation {control}: there is no {file.path}")
    return GenerationParams(
        prompt="",
        width=_side(image.width),
        height=_side(image.height),
        seed=0,
        control=Control(
            type=control,
            image=image,
            model=control_types.control_net_file(models, control),
            annotator=control_types.annotator_file(models, control),
        ),
        return_control_map=True,
    )


def _side(pixels: int) -> int:
    """The nearest side that a job may have."""
    return max(SIDE_STEP, min(MAX_SIDE, round(pixels / SIDE_STEP) * SIDE_STEP))

"""What to generate, checked once, with everything that the job needs at hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hordelib.errors import InvalidParams
from hordelib.job.control_types import CONTROL_TYPES, ControlType
from hordelib.job.images import SourceImage
from hordelib.job.questions import Question
from hordelib.job.samplers import SAMPLERS, USUAL, Sampler, SamplerOptions, Scheduler

SEEDS = 1 << 64  # ComfyUI's and torch's seeds are unsigned 64-bit numbers
SIDE_STEP, MAX_SIDE = 64, 3072
MOST_IMAGES = 20  # in one batch, the horde's limit of a request


def random_seed() -> int:
    """A seed nobody asked for: 32 bits, as the horde draws them."""
    return random.SystemRandom().randrange(1 << 32)


@dataclass(frozen=True, slots=True)
class TextOnly:
    """Nothing to start from but noise."""


@dataclass(frozen=True, slots=True)
class FromImage:
    """Image to image: the picture starts from `image`, of any size."""

    image: SourceImage


@dataclass(frozen=True, slots=True)
class Inpaint:
    """Repaint `image` where `mask` (mode L, of the image's size) is white; keep it where black."""

    image: SourceImage
    mask: SourceImage


@dataclass(frozen=True, slots=True)
class Remix:
    """Variations of pictures, each with its strength (Stable Cascade's unCLIP conditioning)."""

    images: tuple[tuple[SourceImage, float], ...]


Source = TextOnly | FromImage | Inpaint | Remix


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA file and how strongly it changes the UNet (`model`) and the text encoder (`clip`)."""

    name: str  # as the client wrote it
    path: Path
    model: float = 1.0
    clip: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A picture that steers the composition, through a ControlNet."""

    type: ControlType
    image: SourceImage
    model: Path  # the ControlNet's file
    annotator: Path | None = None  # the file of the annotator's weights, for types that need some
    strength: float = 1.0
    image_is_control: bool = False  # `image` is a control map already: no annotator

    @property
    def is_seeded(self) -> bool:
        """Whether each image has a map of its own, by its seed."""
        return CONTROL_TYPES[self.type].is_seeded and not self.image_is_control


class ProcessorKind(Enum):
    """What a post-processor does; they run in this order."""

    face_fixer = "face_fixer"
    upscaler = "upscaler"
    background = "background"


@dataclass(frozen=True, slots=True)
class PostProcessor:
    """One thing that is done to the finished picture."""

    name: str  # the horde's
    kind: ProcessorKind
    path: Path  # the file of its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class QrCode:
    """A QR code that the picture hides. Offsets in pixels of the picture; None centres it."""

    text: str
    protocol: str = "None"
    module_drawer: str = "square"
    function_layer_prompt: str = ""
    x_offset: int | None = None
    y_offset: int | None = None
    border: int = 1  # in modules
    strength: float = 1.0  # of the QR ControlNet, in multiples of the usual one
    model: Path  # the QR ControlNet's file


@dataclass(frozen=True, slots=True)
class Transparency:
    """The files that a transparent picture takes: the UNet's patches, and the decoder."""

    patches: Path
    decoder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationParams:
    """One job: a batch of `images` pictures of one prompt. Frozen, and checked when it is made.

    Raises InvalidParams, which names the field, where a value is outside the horde's own limits
    (its swagger's ModelPayloadStyleStable).
    """

    prompt: str
    negative_prompt: str = ""
    width: int = 512  # pixels, before post-processing
    height: int = 512
    seed: int = field(default_factory=random_seed)
    images: int = 1
    steps: int = 30
    cfg: float = 5.0
    sampler: Sampler = SAMPLERS["k_euler_a"]
    sampler_options: SamplerOptions = USUAL
    scheduler: Scheduler = Scheduler.normal
    flow_shift: float | None = None  # of the noise levels of flow models; None: the model's own
    clip_skip: int = 1  # 1 = the text encoder's output as the model was trained on it
    hires_fix: bool = False  # two passes, where the size is larger than the model's own
    hires_denoise: float | None = None  # of the second pass; None: the usual one
    source: Source = TextOnly()
    denoise: float = 1.0  # how much of the source is given up: 1 starts from noise alone
    loras: tuple[Lora, ...] = ()
    embeddings_folder: Path | None = None  # where `embedding:name` of a prompt is looked for
    control: Control | None = None
    keep_source: bool = False  # the source is the picture: nothing but post-processing is done
    return_control_map: bool = False  # the picture is what the annotator draws
    tiling: bool = False  # the left edge continues the right one, the top the bottom
    transparent: Transparency | None = None
    qr_code: QrCode | None = None
    post_processing: tuple[PostProcessor, ...] = ()
    facefixer_strength: float = 0.75
    question: Question | None = None  # about the source: it is answered, and no picture made
    scoring: Question | None = None  # about every finished picture

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in _LIMITS.items():
            if not is_valid(getattr(self, name)):
                raise InvalidParams(name, getattr(self, name), expected)

        for name, value in self.sampler_options.given():
            option = self.sampler.options.get(name)
            if option is None:
                expected = f"no such option with the sampler {self.sampler.name}"
                raise InvalidParams(f"sampler_{name}", value, expected)
            if not option.accepts(value):
                raise InvalidParams(f"sampler_{name}", value, str(option))

    @property
    def reads_negative(self) -> bool:
        """Whether the negative prompt has any effect: at a cfg scale of 1 it weighs nothing."""
        return self.cfg != 1 or self.sampler.reads_unguided

    @property
    def pictures(self) -> int:
        """How many pictures it makes: none where an answer is all that is asked for."""
        return 0 if self.question is not None else self.images

    def image_seed(self, index: int) -> int:
        """Seed of image `index` of the batch; alone, that seed gives the same picture."""
        return (self.seed + index) % SEEDS


_Limit = tuple[Callable[[Any], bool], str]


def between(low: float, high: float) -> _Limit:
    """A limit of a number, and its words; never holds for NaN."""
    return lambda value: low <= value <= high, f"{low:g} to {high:g}"


_SIDE: _Limit = (
    lambda pixels: pixels % SIDE_STEP == 0 and SIDE_STEP <= pixels <= MAX_SIDE,
    f"a multiple of {SIDE_STEP} from {SIDE_STEP} to {MAX_SIDE}",
)
_LIMITS: dict[str, _Limit] = {
    "width": _SIDE,
    "height": _SIDE,
    "seed": (lambda seed: 0 <= seed < SEEDS, "0 to 2^64 - 1"),
    "images": between(1, MOST_IMAGES),
    "steps": between(1, 500),
    "cfg": between(0, 100),
    "clip_skip": between(1, 12),
    "flow_shift": (lambda shift: shift is None or 0 <= shift <= 100, "0 to 100"),
    "hires_denoise": (lambda share: share is None or 0.01 <= share <= 1, "0.01 to 1"),
    "denoise": between(0.01, 1),
    "facefixer_strength": between(0, 1),
}


def auxiliaries_of(params: GenerationParams) -> tuple[Path, ...]:
    """The files that work beside the job's model: of ControlNets, post-processors and so on."""
    files = [processor.path for processor in params.post_processing]
    if params.transparent is not None:
        files += [params.transparent.patches, params.transparent.decoder]
    if params.qr_code is not None:
        files.append(params.qr_code.model)
    if (control := params.control) is not None:
        if not params.return_control_map:
            files.append(control.model)
        if control.annotator is not None and not control.image_is_control:
            files.append(control.annotator)
    return tuple(files)


def images_of(params: GenerationParams) -> dict[str, SourceImage]:
    """Every image that the job starts from, by its name in the graph."""
    match params.source:
        case FromImage(image):
            images = {"source": image}
        case Inpaint(image, mask):
            images = {"source": image, "mask": mask}
        case Remix(pictures):
            images = {f"remix_{i}": image for i, (image, _) in enumerate(pictures)}
        case TextOnly():
            images = dict[str, SourceImage]()
    return images if params.control is None else {**images, "control": params.control.image}

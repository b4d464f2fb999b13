"""Request bodies of the v2 API: types, limits and defaults as its schema has them.

Past this module nothing sees raw JSON. Whatever does not fit raises InvalidInput in the
server's own shape; an explicit null is refused as the server refuses it, unknown keys are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from worker.sandbox.errors import InvalidInput, NotJson

T = TypeVar("T")
AnyBody = TypeVar("AnyBody", bound="Body")


def _refuse_null(value: object) -> object:
    if value is None:
        raise PydanticCustomError("null", "None is not of the right type")
    return value


def _refuse_repetition(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("unique", "the list has non-unique elements")
    return values


Given: TypeAlias = Annotated[T | None, BeforeValidator(_refuse_null)]
"""Absent is None; null in the JSON is an error."""

LegacySampler = Literal[
    "k_dpmpp_sde", "k_dpmpp_2m", "k_euler", "k_dpmpp_2s_a", "k_dpm_adaptive", "k_dpm_2",
    "k_dpm_fast", "k_lms", "lcm", "k_dpm_2_a", "DDIM", "k_euler_a", "k_heun", "dpmsolver",
]  # fmt: skip
ExtendedSampler = Literal[
    "uni_pc", "uni_pc_bh2", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddpm", "deis", "ipndm",
    "res_multistep", "gradient_estimation", "heunpp2", "er_sde", "sa_solver",
]  # fmt: skip
KnobSampler = Literal[
    "euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde_heun", "ipndm_v", "res_multistep_cfg_pp", "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp", "seeds_2", "seeds_3",
    "sa_solver_pece", "exp_heun_2_x0", "exp_heun_2_x0_sde",
]  # fmt: skip
Sampler = Literal[LegacySampler, ExtendedSampler, KnobSampler]
Scheduler = Literal[
    "normal", "karras", "simple", "sgm_uniform", "exponential", "ddim_uniform", "beta",
    "linear_quadratic", "kl_optimal", "align_your_steps", "gits",
]  # fmt: skip
SolverType = Literal["midpoint", "heun", "phi_1", "phi_2"]
ClassicControlType = Literal[
    "canny", "hed", "depth", "normal", "openpose", "seg", "scribble", "fakescribbles", "hough"
]
ExtendedControlType = Literal[
    "pyracanny", "binary", "scribble_xdog", "standard_lineart", "color", "shuffle",
    "recolor_luminance", "recolor_intensity", "tile", "tile_ttplanet_guided",
    "tile_ttplanet_simple", "mlsd", "lineart", "lineart_anime", "lineart_anime_denoise",
    "pidinet", "scribble_pidinet", "teed", "normal_bae", "midas_depth", "zoe_depth",
    "depth_anything", "depth_anything_v2", "oneformer_ade20k", "oneformer_coco",
]  # fmt: skip
ControlType = Literal[ClassicControlType, ExtendedControlType]
EXTENDED_CONTROL_TYPES: frozenset[str] = frozenset(get_args(ExtendedControlType))
PostProcessor = Literal[
    "GFPGAN", "RealESRGAN_x4plus", "RealESRGAN_x2plus", "RealESRGAN_x4plus_anime_6B", "NMKD_Siax",
    "4x_AnimeSharp", "CodeFormers", "strip_background", "4xNomos8kSC", "4xLSDIRplus",
    "4xNomosWebPhoto_RealPLKSR", "4xNomos2_realplksr_dysample", "4xNomos2_hq_dat2",
    "2xModernSpanimationV1", "GFPGANv1.3", "RestoreFormer",
]  # fmt: skip
SourceProcessing = Literal["img2img", "inpainting", "outpainting", "remix"]
MetadataType = Literal[
    "lora", "ti", "censorship", "source_image", "source_mask", "extra_source_images",
    "batch_index", "information", "aesthetic_score",
]  # fmt: skip
MetadataValue = Literal[
    "download_failed", "parse_failed", "baseline_mismatch", "csam", "nsfw", "see_ref"
]

Fraction: TypeAlias = Annotated[float, Field(ge=0.01, le=1.0)]
Side: TypeAlias = Annotated[int, Field(ge=64, le=3072, multiple_of=64)]
Strength: TypeAlias = Annotated[float, Field(ge=-5.0, le=5.0)]
Knob: TypeAlias = Annotated[float, Field(ge=0)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=255)]
ModelName: TypeAlias = Annotated[str, Field(min_length=3, max_length=255)]


class Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Lora(Body):
    name: Name
    model: Strength = 1.0
    clip: Strength = 1.0
    inject_trigger: Given[Annotated[str, Field(min_length=1, max_length=30)]] = None
    is_version: bool = False


class TextualInversion(Body):
    name: Name
    inject_ti: Given[Literal["prompt", "negprompt"]] = None
    strength: Strength = 1.0


class ExtraText(Body):
    text: Annotated[str, Field(min_length=1)]
    reference: Given[Annotated[str, Field(min_length=3)]] = None


class ExtraSourceImage(Body):
    image: Annotated[str, Field(min_length=1)]
    strength: float = 1.0


class Params(Body):
    """What to draw. Defaults are those the server fills in, not those its schema shows."""

    width: Side = 512
    height: Side = 512
    steps: Given[Annotated[int, Field(ge=1, le=500)]] = None
    n: Annotated[int, Field(ge=1, le=20)] = 1
    sampler_name: Sampler = "k_euler_a"
    cfg_scale: Annotated[float, Field(ge=0, le=100)] = 5.0
    karras: bool = True
    scheduler: Given[Scheduler] = None
    sampler_eta: Given[Knob] = None
    sampler_s_noise: Given[Knob] = None
    sampler_s_churn: Given[Knob] = None
    sampler_s_tmin: Given[Knob] = None
    sampler_s_tmax: Given[Knob] = None
    sampler_solver_type: Given[SolverType] = None
    sampler_order: Given[Annotated[int, Field(ge=1)]] = None
    flow_shift: Given[float] = None
    tiling: bool = False
    hires_fix: bool = False
    transparent: bool = False
    image_is_control: bool = False
    return_control_map: bool = False
    seed: Given[str] = None
    seed_variation: Given[Annotated[int, Field(ge=1, le=1000)]] = None
    denoising_strength: Given[Fraction] = None
    hires_fix_denoising_strength: Given[Fraction] = None
    facefixer_strength: Given[Annotated[float, Field(ge=0, le=1.0)]] = None
    clip_skip: Given[Annotated[int, Field(ge=1, le=12)]] = None
    control_type: Given[ControlType] = None
    control_strength: Given[Annotated[float, Field(ge=0.01, le=3.0)]] = None
    post_processing: Annotated[tuple[PostProcessor, ...], AfterValidator(_refuse_repetition)] = ()
    loras: tuple[Lora, ...] = ()
    tis: tuple[TextualInversion, ...] = ()
    extra_texts: tuple[ExtraText, ...] = ()
    workflow: Given[Literal["qr_code"]] = None

    @model_validator(mode="after")
    def _tell_old_bridges(self) -> Self:
        """These two schedules are what `karras` says, which every bridge reads."""
        if self.scheduler in ("karras", "normal"):
            return self.model_copy(update={"karras": self.scheduler == "karras"})
        return self

    @property
    def has_options(self) -> bool:
        """Whether the client set any option of its sampler."""
        return any(getattr(self, name) is not None for name in SAMPLER_OPTIONS)

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def effective_steps(self) -> int:
        """Steps a worker is told: 30, or 20 with ControlNet, which never gets more than 40."""
        if self.control_type is None:
            return 30 if self.steps is None else self.steps
        return 20 if self.steps is None else min(self.steps, 40)


SAMPLER_OPTIONS = tuple(
    name for name in Params.model_fields if name.startswith("sampler_") and name != "sampler_name"
)


class GenerateBody(Body):
    prompt: Annotated[str, Field(min_length=1)]
    params: Params = Params()
    models: tuple[str, ...] = ()
    nsfw: bool = False
    censor_nsfw: bool = False
    r2: bool = True
    shared: bool = False
    slow_workers: bool = True
    extra_slow_workers: bool = False
    trusted_workers: bool = False
    workers: tuple[str, ...] = ()
    worker_blacklist: bool = False
    source_image: Given[str] = None
    source_mask: Given[str] = None
    source_processing: SourceProcessing = "img2img"
    extra_source_images: tuple[ExtraSourceImage, ...] = ()
    dry_run: bool = False
    disable_batching: bool = False
    allow_downgrade: bool = False

    @property
    def paints(self) -> bool:
        return self.source_processing in ("inpainting", "outpainting")


class PopBody(Body):
    """What a worker offers. Defaults are those of the server's parser."""

    name: str
    models: tuple[ModelName, ...] = ()
    bridge_agent: Annotated[str, Field(max_length=1000)] = "unknown:0:unknown"
    nsfw: bool = True
    amount: Annotated[int, Field(ge=1, le=20)] = 1
    threads: Annotated[int, Field(ge=1, le=50)] = 1
    max_pixels: int = 262_144
    blacklist: tuple[str, ...] = ()
    priority_usernames: tuple[str, ...] = ()
    require_upfront_kudos: bool = False
    allow_img2img: bool = True
    allow_painting: bool = True
    allow_unsafe_ipaddr: bool = True
    allow_post_processing: bool = True
    allow_controlnet: bool = False
    allow_extended_controlnet: bool = False
    allow_sdxl_controlnet: bool = False
    allow_lora: bool = False
    limit_max_steps: bool = False
    extra_slow_worker: bool = False
    sampler_execution_contract_version: object = None

    @property
    def bounds_adaptive_solvers(self) -> bool:
        """Promises to end k_dpm_adaptive in time; of what is no known version, nothing follows."""
        return self.sampler_execution_contract_version == "1.0"


class Metadata(Body):
    type: MetadataType
    value: MetadataValue
    ref: Given[Annotated[str, Field(max_length=255)]] = None


class SubmitBody(Body):
    id: str
    generation: str
    seed: int
    state: Literal["ok", "censored", "faulted", "csam"] = "ok"
    censored: bool = False
    gen_metadata: tuple[Metadata, ...] = ()


class WorkerBody(Body):
    """Changes to a worker by its owner."""

    maintenance: Given[bool] = None
    maintenance_msg: Given[str] = None
    paused: Given[bool] = None
    info: Given[Annotated[str, Field(max_length=1000)]] = None
    name: Given[Annotated[str, Field(min_length=5, max_length=100)]] = None
    team: Given[Annotated[str, Field(max_length=36)]] = None


def parse(model: type[AnyBody], raw: bytes) -> AnyBody:
    """The body as `model`. Raises NotJson or InvalidInput."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        details = error.errors()
        if details[0]["type"] == "json_invalid":
            raise NotJson from error
        raise InvalidInput({_field(row): _complaint(row) for row in details}) from error


def _field(row: ErrorDetails) -> str:
    return ".".join(str(step) for step in row["loc"])


# Wording of the JSON schema checker that the server uses.
_COMPLAINTS = {
    "missing": "{field!r} is a required property",
    "int_type": "{input!r} is not of type 'integer'",
    "int_from_float": "{input!r} is not of type 'integer'",
    "float_type": "{input!r} is not of type 'number'",
    "bool_type": "{input!r} is not of type 'boolean'",
    "string_type": "{input!r} is not of type 'string'",
    "tuple_type": "{input!r} is not of type 'array'",
    "model_type": "{input!r} is not of type 'object'",
    "greater_than_equal": "{input!r} is less than the minimum of {ge:g}",
    "less_than_equal": "{input!r} is greater than the maximum of {le:g}",
    "multiple_of": "{input!r} is not a multiple of {multiple_of:g}",
    "literal_error": "{input!r} is not one of [{expected}]",
    "string_too_long": "{input!r} is too long",
    "string_too_short": "{input!r} is too short",
}


def _complaint(row: ErrorDetails) -> str:
    wording = _COMPLAINTS.get(row["type"])
    if wording is None:
        return row["msg"]
    write: Callable[..., str] = wording.format
    context: dict[str, Any] = row.get("ctx", {})
    return write(field=str(row["loc"][-1]), input=row["input"], **context)

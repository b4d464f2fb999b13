"""bridgeData.yaml, checked once: past `load_config` there is only the frozen `BridgeConfig`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationError,
)
from pydantic_core import ErrorDetails

from hordelib.job.families import BASELINES
from hordelib.texts import harmless
from worker.config.document import ConfigDocument, read_document
from worker.config.keys import KEYS, is_word
from worker.errors import ConfigError

_UNIT_BYTES: Final = {"": 2**20, "mib": 2**20, "gib": 2**30, "mb": 10**6, "gb": 10**9}
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_SHARE: Final = re.compile(r"(\d{1,2})\s*%")
_SHARED_KEY: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BRIDGE_AGENT: Final = re.compile(r"[^:]+:\d+(\.\d+)*:\S+")
_REFUSED_IN_NAMES: Final = re.compile("colab|tpu|google", re.IGNORECASE)
_ALL_BUT_A_LITTLE_PERCENT: Final = 50


@dataclass(frozen=True, slots=True)
class MemoryReserve:
    """Memory that is not ours: a share of the device, or a fixed size."""

    percent: int = 0
    size_bytes: int = 0

    @classmethod
    def parse(cls, value: object) -> Self:
        """From "20%", "2 GiB", "2048" or 2048 (MiB). Raises ValueError for anything else."""
        text = str(value).strip() if isinstance(value, (str, int)) else ""
        if share := _SHARE.fullmatch(text):
            return cls(percent=_within(int(share[1]), 95))
        amount = _AMOUNT.fullmatch(text)
        if not amount or amount[2].lower() not in _UNIT_BYTES:
            raise ValueError
        return cls(size_bytes=int(float(amount[1]) * _UNIT_BYTES[amount[2].lower()]))

    def bytes_of(self, total_bytes: int) -> int:
        """Bytes to leave free on a device of `total_bytes`."""
        return min(total_bytes, total_bytes * self.percent // 100 + self.size_bytes)


def _within(number: int, most: int) -> int:
    if number > most:
        raise ValueError
    return number


def _base_url(text: str) -> str:
    """`https://host` from any of the forms that older workers wanted, with or without /api/."""
    url = urlsplit(text.strip())
    if (
        not url.hostname
        or re.search(r"\s", text.strip())
        or url.username
        or url.query
        or url.fragment
    ):
        raise ValueError
    if url.scheme != "https" and not (url.scheme == "http" and _is_private(url.hostname)):
        raise ValueError
    if url.port == 0:  # reading the port also raises for a broken one
        raise ValueError
    return f"{url.scheme}://{url.netloc}{re.sub(r'(/api(/v2)?)?/*$', '', url.path)}"


def _is_private(host: str) -> bool:
    """Whether the api key stays on this machine or in its own network without encryption."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def _token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return token


def _api_key(key: SecretStr) -> SecretStr:
    text = _token(key).get_secret_value()
    if _SHARED_KEY.fullmatch(text):
        raise ValueError
    return key


def _worker_name(name: str) -> str:
    name = name.strip()
    if not name or harmless(name) != name or _REFUSED_IN_NAMES.search(name):
        raise ValueError
    return name


def _single_model(name: str) -> str:
    if is_word(name):
        raise ValueError
    return name


def _reference_address(text: str) -> str:
    """An address without its last slash, or "none"."""
    if text.strip() == "none":
        return "none"
    _base_url(text)
    return text.strip().rstrip("/")


def _bridge_agent(agent: str) -> str:
    if not _BRIDGE_AGENT.fullmatch(agent) or not agent.isprintable():
        raise ValueError
    return agent


def _baseline(text: str) -> str:
    if text.lower() not in BASELINES:
        raise ValueError
    return BASELINES[text.lower()]


def _censored_words(words: str) -> str:
    if not re.search(r"[^\W_]", words):
        raise ValueError
    return words


def _path(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~name of nobody on this machine
        raise ValueError from error


ModelName = Annotated[StrictStr, Field(min_length=3, max_length=255)]
SingleModel = Annotated[ModelName, AfterValidator(_single_model)]
BlacklistWord = Annotated[StrictStr, Field(min_length=1, max_length=15)]
CensoredWords = Annotated[StrictStr, Field(max_length=100), AfterValidator(_censored_words)]
Username = Annotated[StrictStr, Field(pattern=r"^.+#\d+$")]
Baseline = Annotated[StrictStr, AfterValidator(_baseline)]
OwnerPath = Annotated[Path, AfterValidator(_path)]
Reserve = Annotated[MemoryReserve, BeforeValidator(MemoryReserve.parse)]


class CustomModel(BaseModel):
    """A checkpoint file that no reference lists; `baseline` in the horde's own spelling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SingleModel
    baseline: Baseline
    filepath: OwnerPath


class BridgeConfig(BaseModel):
    """What the owner wants. Keys and their effects: `config_keys.KEYS`; time in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: Annotated[SecretStr, AfterValidator(_api_key)]
    dreamer_name: Annotated[
        StrictStr, Field(min_length=1, max_length=100), AfterValidator(_worker_name)
    ]
    models_to_load: Annotated[tuple[ModelName, ...], Field(max_length=300)] = ()
    models_to_skip: tuple[ModelName, ...] = ()
    load_large_models: StrictBool = False
    dynamic_models: StrictBool = False
    number_of_dynamic_models: Annotated[StrictInt, Field(ge=0, le=100)] = 0
    max_models_to_download: Annotated[StrictInt, Field(ge=0, le=1000)] = 10
    custom_models: tuple[CustomModel, ...] = ()
    max_power: Annotated[StrictInt, Field(ge=1, le=512)] = 8
    max_batch: Annotated[StrictInt, Field(ge=1, le=20)] = 4
    queue_size: Annotated[StrictInt, Field(ge=0, le=4)] = 1
    nsfw: StrictBool = True
    censor_nsfw: StrictBool = False
    censorlist: tuple[CensoredWords, ...] = ()
    safety: Literal["required", "best_effort"] | None = None
    """None: as worker.safety.policy says of the horde that is served."""
    blacklist: Annotated[tuple[BlacklistWord, ...], Field(max_length=200)] = ()
    priority_usernames: tuple[Username, ...] = ()
    require_upfront_kudos: StrictBool = False
    allow_unsafe_ip: StrictBool = True
    allow_img2img: StrictBool = True
    allow_painting: StrictBool = True
    allow_post_processing: StrictBool = True
    allow_controlnet: StrictBool = True
    allow_sdxl_controlnet: StrictBool = False
    allow_lora: StrictBool = True
    max_lora_cache_size: Annotated[StrictInt, Field(ge=1, le=2048)] = 10
    civitai_api_token: Annotated[SecretStr, AfterValidator(_token)] | None = None
    extra_slow_worker: StrictBool = False
    limit_max_steps: StrictBool = False
    vram_to_leave_free: Reserve = MemoryReserve(percent=10)
    ram_to_leave_free: Reserve = MemoryReserve(percent=10)
    cache_home: OwnerPath = Path(".")
    comfyui_path: OwnerPath | None = None
    preload_timeout: Annotated[StrictInt, Field(ge=15, le=3600)] = 120
    inference_step_timeout: Annotated[StrictInt, Field(ge=5, le=600)] = 60
    process_timeout: Annotated[StrictInt, Field(ge=30, le=3600)] = 600
    stop_timeout: Annotated[StrictInt, Field(ge=5, le=3600)] = 60
    stats_output_frequency: Annotated[StrictInt, Field(ge=0, le=86400)] = 30
    horde_url: Annotated[StrictStr, AfterValidator(_base_url)] = "https://aihorde.net"
    model_reference: Annotated[StrictStr, AfterValidator(_reference_address)] | None = None
    bridge_agent: (
        Annotated[StrictStr, Field(max_length=1000), AfterValidator(_bridge_agent)] | None
    ) = None
    notes: tuple[str, ...] = ()
    """Lines for the owner, shown once at start: old keys of the file and what became of them."""

    @property
    def max_pixels(self) -> int:
        """Largest width x height that is offered (the horde's own formula of max_power)."""
        return 64 * 64 * 8 * self.max_power

    @property
    def models(self) -> tuple[str, ...]:
        """Names and words to offer, each once, in the order of the file, without the skipped."""
        names = (*self.models_to_load, *(model.name for model in self.custom_models))
        return tuple(name for name in dict.fromkeys(names) if name not in self.models_to_skip)

    @property
    def serves_dynamically(self) -> bool:
        """Whether the horde's queues choose models too."""
        return self.dynamic_models and self.number_of_dynamic_models > 0

    def models_folder(self, home: Path) -> Path:
        """The folder of model files. `home` is what a relative cache_home starts from."""
        cache = home / self.cache_home
        return cache if cache.name == "models" else cache / "models"


def load_config(path: Path) -> BridgeConfig:
    """The configuration in `path`. Raises ConfigError with every problem found, a line each."""
    document = read_document(path)
    problems = [*document.problems]
    try:
        config = BridgeConfig.model_validate(
            {**document.settings, "notes": document.notes + _reserve_notes(document)}
        )
    except ValidationError as error:
        problems += _problem_lines(error, document)
        raise ConfigError(tuple(problems)) from None  # the cause would hold the api key
    if not (config.models or config.serves_dynamically) and "models_to_load" not in document.faulty:
        problems.append(
            f"models_to_load: names no model; expected {KEYS['models_to_load'].expects}"
        )
    if problems:
        raise ConfigError(tuple(problems))
    return config


def models_place(path: Path) -> BridgeConfig:
    """A configuration of which only `models_folder` counts: a set-up may need it before the rest.

    The file may be missing, or still have to be filled in. Raises ConfigError where it can't be
    read, and for its cache_home.
    """
    unused = {"api_key": "unused", "dreamer_name": "unused"}
    if not path.exists():
        return BridgeConfig.model_validate(unused)
    document = read_document(path)
    place = {key: value for key, value in document.settings.items() if key == "cache_home"}
    try:
        return BridgeConfig.model_validate(unused | place)
    except ValidationError as error:
        raise ConfigError(tuple(_problem_lines(error, document))) from None


def _problem_lines(error: ValidationError, document: ConfigDocument) -> list[str]:
    details = error.errors(include_url=False, include_context=False)
    return [_problem_line(each) for each in details if each["loc"][0] not in document.faulty]


def _problem_line(detail: ErrorDetails) -> str:
    key = str(detail["loc"][0])
    label = key + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"][1:]
    )
    found = {"missing": "missing", "extra_forbidden": "unknown"}.get(detail["type"])
    line = f"{label}: {found or shown(key, detail['input'])}; expected {KEYS[key].expects}"
    unquoted = detail["type"] == "string_type" and not isinstance(detail["input"], (list, dict))
    return f"{line} (put it in quotes)" if unquoted else line


def shown(key: str, value: object) -> str:
    """A value as a problem line shows it: on one line, not too long, and never a secret."""
    if key in ("api_key", "civitai_api_token"):
        return "its value can't be one"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _reserve_notes(document: ConfigDocument) -> tuple[str, ...]:
    """Older workers shipped "80%" and ignored it; taken at its word it leaves next to nothing."""
    notes: list[str] = []
    for key in ("vram_to_leave_free", "ram_to_leave_free"):
        share = _SHARE.fullmatch(str(document.settings.get(key, "")).strip())
        if share and int(share[1]) > _ALL_BUT_A_LITTLE_PERCENT:
            notes.append(
                f"{key}: {share[0]} is kept free indeed (older workers ignored this key), so only "
                f"{100 - int(share[1])}% is used; 10% is usual"
            )
    return tuple(notes)

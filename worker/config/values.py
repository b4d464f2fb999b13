"""The values that keys of bridgeData.yaml may have: each parser raises ValueError for others."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StrictBool, StrictStr

from hordelib.comfyui.fast import SWITCHES
from hordelib.job.families import BASELINES
from hordelib.job.post_processors import POST_PROCESSORS
from hordelib.texts import harmless
from worker.config.hours import HourSpan
from worker.version import VERSION

PROJECT_URL = "https://github.com/dreamer-horde/dreamer"
CLIENT_AGENT = f"Dreamer:{VERSION}:{PROJECT_URL}"

AUTO: Final = "auto"
# What ComfyUI leaves free where the desktop is on the same card: 600 MiB, and 100 on large ones.
AUTO_BYTES: Final = 700 << 20

_UNIT_BYTES: Final = {"": 2**20, "mib": 2**20, "gib": 2**30, "mb": 10**6, "gb": 10**9}
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
SHARE: Final = re.compile(r"(\d{1,2})\s*%")
SHARED_KEY: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BRIDGE_AGENT: Final = re.compile(r"[^:]+:\d+(\.\d+)*:\S+")
_NOTIFY_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]{0,40}://[!-~]{1,2000}", re.IGNORECASE)
_REFUSED_IN_NAMES: Final = re.compile("colab|tpu|google", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MemoryReserve:
    """Memory that is not ours: a share of the device, or a fixed size."""

    percent: int = 0
    size_bytes: int = 0
    most_bytes: int = 0  # that the share comes to; 0: no limit

    @classmethod
    def parse_cards(cls, value: object) -> Self:
        """As `parse`, or "auto": a tenth of a small card, and AUTO_BYTES of others."""
        if str(value).strip().lower() == AUTO:
            return cls(percent=10, most_bytes=AUTO_BYTES)
        return cls.parse(value)

    @classmethod
    def parse(cls, value: object) -> Self:
        """From "20%", "2 GiB", "2048" or 2048 (MiB). Raises ValueError for anything else."""
        text = str(value).strip() if isinstance(value, (str, int)) else ""
        if share := SHARE.fullmatch(text):
            return cls(percent=_within(int(share[1]), 95))
        amount = _AMOUNT.fullmatch(text)
        if not amount or amount[2].lower() not in _UNIT_BYTES:
            raise ValueError
        return cls(size_bytes=int(float(amount[1]) * _UNIT_BYTES[amount[2].lower()]))

    def bytes_of(self, total_bytes: int) -> int:
        """Bytes to leave free on a device of `total_bytes`."""
        share_bytes = total_bytes * self.percent // 100
        if self.most_bytes:
            share_bytes = min(share_bytes, self.most_bytes)
        return min(total_bytes, share_bytes + self.size_bytes)

    def __str__(self) -> str:
        """As the configuration has it."""
        if self.most_bytes:
            return AUTO
        return f"{self.percent}%" if self.percent else f"{self.size_bytes >> 20} MiB"


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


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _page_address(text: str) -> str:
    """`http://address:port`, or "" for no page."""
    if not text.strip():
        return ""
    url = urlsplit(text.strip())
    host = url.hostname or ""
    if host != "localhost":
        ipaddress.ip_address(host)
    if url.scheme != "http" or not url.port or url.path not in ("", "/"):
        raise ValueError
    if url.username or url.query or url.fragment:
        raise ValueError
    return f"http://{url.netloc}"


def _text_address(text: str) -> str:
    """`http://host:port` from any of the forms that text servers are known by."""
    url = urlsplit(text.strip())
    if url.scheme not in ("http", "https") or not url.hostname or re.search(r"\s", text.strip()):
        raise ValueError
    if url.username or url.query or url.fragment or url.port == 0:
        raise ValueError
    return f"{url.scheme}://{url.netloc}{re.sub(r'(/api)?(/v1)?/*$', '', url.path)}"


def _text_api(told: object) -> object:
    """Older workers had a yes or no to OpenAI's."""
    return {True: "openai", False: "kobold"}[told] if isinstance(told, bool) else told


def _password(password: SecretStr) -> SecretStr:
    if not 8 <= len(password.get_secret_value()) <= 1000:
        raise ValueError
    return password


def _token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return token


def _api_key(key: SecretStr) -> SecretStr:
    text = _token(key).get_secret_value()
    if SHARED_KEY.fullmatch(text):
        raise ValueError
    return key


# The horde's forms of alchemy that an owner may name, known here or not yet served.
FORM_WORDS: Final = (
    "caption",
    "interrogation",
    "nsfw",
    "vectorize",
    "palette",
    "describe",
    "aesthetic",
    "annotation",
    "post-process",
    *POST_PROCESSORS,
)


def _form_word(word: str) -> str:
    if word not in FORM_WORDS:
        raise ValueError
    return word


def _fast_word(word: str) -> str:
    if word not in SWITCHES:
        raise ValueError
    return word


def _one_attention(words: tuple[str, ...]) -> tuple[str, ...]:
    if {"sage_attention", "flash_attention"} <= set(words):
        raise ValueError
    return words


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


def _listening_address(text: str) -> str:
    host, _, port = text.strip().rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError
    return text.strip()


class NoticeKind(StrEnum):
    """What an owner can be written to about."""

    maintenance = "maintenance"
    stopped = "stopped"
    disk = "disk"
    no_jobs = "no_jobs"
    model_withdrawn = "model_withdrawn"
    new_version = "new_version"


def _notify_address(address: SecretStr) -> SecretStr:
    if not _NOTIFY_ADDRESS.fullmatch(address.get_secret_value()):
        raise ValueError
    return address


def _in_a_list(value: object) -> object:
    """A text holds one or more, apart by blanks."""
    return value.split() if isinstance(value, str) else value


def _path(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~name of nobody on this machine
        raise ValueError from error


def expects(what: str, **bounds: Any) -> Any:
    """`what` completes "expected …" where a value is wrong."""
    return Field(json_schema_extra={"expects": what}, **bounds)


def whole(least: int, most: int, unit: str = "") -> Any:
    return expects(f"a whole number{unit} from {least} to {most}", ge=least, le=most)


def seconds(least: int, most: int) -> Any:
    return whole(least, most, " of seconds")


YesNo = Annotated[StrictBool, expects("true or false")]
PageAddress = Annotated[StrictStr, AfterValidator(_page_address)]
TextAddress = Annotated[StrictStr, AfterValidator(_text_address)]
TextApi = Annotated[Literal["auto", "kobold", "openai"], BeforeValidator(_text_api)]
Password = Annotated[SecretStr, AfterValidator(_password)]
Token = Annotated[SecretStr, AfterValidator(_token)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
FormWord = Annotated[StrictStr, AfterValidator(_form_word)]
FastWords = Annotated[
    tuple[Annotated[StrictStr, AfterValidator(_fast_word)], ...],
    AfterValidator(_one_attention),
    expects(f"a list of {', '.join(SWITCHES)}; one attention at most"),
]
WorkerName = Annotated[StrictStr, Field(min_length=1, max_length=100), AfterValidator(_worker_name)]
BaseUrl = Annotated[StrictStr, AfterValidator(_base_url)]
ReferenceAddress = Annotated[StrictStr, AfterValidator(_reference_address)]
BridgeAgent = Annotated[StrictStr, Field(max_length=1000), AfterValidator(_bridge_agent)]
ModelName = Annotated[StrictStr, Field(min_length=3, max_length=255)]
SingleModel = Annotated[ModelName, AfterValidator(_single_model)]
BlacklistWord = Annotated[StrictStr, Field(min_length=1, max_length=15)]
CensoredWords = Annotated[StrictStr, Field(max_length=100), AfterValidator(_censored_words)]
Username = Annotated[StrictStr, Field(pattern=r"^.+#\d+$")]
Baseline = Annotated[StrictStr, AfterValidator(_baseline)]
ListeningAddress = Annotated[StrictStr, AfterValidator(_listening_address)]
NotifyAddress = Annotated[SecretStr, AfterValidator(_notify_address)]
NotifyAddresses = Annotated[tuple[NotifyAddress, ...], BeforeValidator(_in_a_list)]
ProgramName = Annotated[StrictStr, Field(min_length=1, max_length=100)]
Hours = Annotated[HourSpan, BeforeValidator(HourSpan.parse)]
OwnerPath = Annotated[Path, AfterValidator(_path)]
_SHARE_OR_SIZE: Final = 'a share ("20%", up to 95%), a size ("2 GiB", "512 MiB") or a number of MiB'
Reserve = Annotated[MemoryReserve, BeforeValidator(MemoryReserve.parse), expects(_SHARE_OR_SIZE)]
CARD_RESERVE: Final = f"auto, {_SHARE_OR_SIZE}"
CardReserve = Annotated[
    MemoryReserve, BeforeValidator(MemoryReserve.parse_cards), expects(CARD_RESERVE)
]


def is_word(text: str) -> bool:
    """Whether it is, or was meant as, a word that stands for models."""
    return bool(_LIKE_A_WORD.fullmatch(text.strip()))


_LIKE_A_WORD = re.compile(r"(top|bottom)( \S+)?( models?)?|all( .*)?", re.IGNORECASE)

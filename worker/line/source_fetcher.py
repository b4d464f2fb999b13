"""A job's source pictures, from where the horde's answer says they are.

What an address leads to is a stranger's: only http and https are spoken, only addresses that the
horde may send us to are connected to, nothing of the owner's (key, proxy, cookies, .netrc) goes
there, and size, time and redirects are bounded.
"""

from __future__ import annotations

import binascii
import time
from base64 import b64decode
from collections.abc import Mapping
from types import MappingProxyType

from urllib3.util import Url

from hordelib.errors import BadSource, DownloadFailed, InvalidParams, JobError
from hordelib.job.image_files import MAX_BYTES, decode, decode_mask
from hordelib.job.images import SourceImage
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.starts import Sources
from worker.backoff import Backoff, retry_after_seconds
from worker.clock import elapsed_seconds
from worker.horde.api import ExtraSource, Job
from worker.net.addresses import Neighbourhood, NoBusiness, parsed
from worker.net.call import Http
from worker.net.messages import (
    AnswerTooLong,
    BadRedirect,
    HttpAnswer,
    HttpFailed,
    HttpRequest,
    NotTrusted,
)

CONNECT_SECONDS = 5.0
MAX_REDIRECTS = 3
MAX_STRENGTH = 5.0

_SCHEMES = ("http", "https")
_LONGEST_BASE64 = 4 * (MAX_BYTES // 3 + 1)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_WHAT_A_STATUS_MEANS: Mapping[int, str] = MappingProxyType(
    {
        403: "HTTP 403: the address has expired",
        404: "HTTP 404: it is not there",
        410: "HTTP 410: it is gone",
    }
)


class TryLater(JobError):
    """The same request may succeed a little later, or from another worker's network."""

    def __init__(self, message: str, pause_seconds: float | None = None):
        super().__init__(message)
        self.pause_seconds = pause_seconds


class SourceFetcher:
    """Reads what a job refers to. Any thread may use it.

    `horde_url`: a horde on the owner's own network may refer to this network, one on this machine
    to this machine; any other only to public addresses. `seconds` is the most that one reference
    takes, with all tries; `try_seconds` the most of one try.
    """

    def __init__(
        self,
        horde_url: str,
        *,
        client_agent: str,
        seconds: float = 30.0,
        try_seconds: float = 12.0,
    ):
        self._neighbourhood = Neighbourhood(horde_url)
        self._http = Http(client_agent, trust_env=False)
        self._seconds = seconds
        self._try_seconds = try_seconds

    def fetch(self, reference: str, field: str = "source_image") -> bytes:
        """The bytes behind an http(s) URL, or in base64.

        Raises BadSource where they can't be asked for or are too many, DownloadFailed where the
        server says that they are not to be had, and TryLater where they were not had in time.
        Messages begin with `field`, and hold no more of a URL than its host.
        """
        if "://" not in reference:
            return _from_base64(reference, field)
        try:
            return self._patiently(reference, elapsed_seconds() + self._seconds)
        except (BadSource, DownloadFailed, TryLater) as error:
            raise type(error)(f"{field}: {error}") from error

    def _patiently(self, url: str, until: float) -> bytes:
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            try:
                return self._follow(url, min(until, elapsed_seconds() + self._try_seconds))
            except TryLater as error:
                pause_seconds = backoff.delay(error.pause_seconds)
                if elapsed_seconds() + pause_seconds >= until:
                    raise
                time.sleep(pause_seconds)

    def _follow(self, url: str, until: float) -> bytes:
        asked: list[Url] = []  # the addresses on the way

        def request_to(address: str) -> HttpRequest:
            target = _target(address)
            if asked and asked[-1].scheme == "https" and target.scheme != "https":
                raise BadSource(f"{asked[-1].host}: redirects from https to something else")
            asked.append(target)
            return HttpRequest(
                url=target.url,
                headers={"Accept-Encoding": "identity"},
                until=until,
                connect_seconds=CONNECT_SECONDS,
                silence_seconds=self._try_seconds,
                screen=self._neighbourhood.permit,
            )

        try:
            with self._http.follow(url, request_to, MAX_REDIRECTS) as (_, answer):
                _raise_for_status(asked[-1], answer)
                return answer.read(MAX_BYTES)
        except AnswerTooLong as error:
            raise BadSource(f"{asked[-1].host}: more than {MAX_BYTES} bytes") from error
        except BadRedirect as error:
            raise BadSource(f"{asked[-1].host}: {error}") from error
        except NoBusiness as error:
            raise BadSource(str(error)) from error
        except NotTrusted as error:
            raise DownloadFailed(f"{asked[-1].host}: {error}") from error
        except HttpFailed as error:
            raise TryLater(f"{asked[-1].host}: {error}") from error


_LOST = (BadSource, DownloadFailed, InvalidParams)  # to every worker alike


def fetch_sources(job: Job, fetcher: SourceFetcher) -> Sources:
    """The decoded pictures of a job. What nobody can have or read is left out, and disclosed.

    A mask says what has to stay of its picture: with one that is lost, nothing may be repainted,
    so that is a BadSource. Raises TryLater for what another worker may be able to fetch.
    """
    image, image_notes = _one(job.source_image, "source_image", fetcher)
    mask, mask_notes = _one(job.source_mask, "source_mask", fetcher)
    if image is not None and job.source_mask is not None and mask is None:
        raise BadSource(str(mask_notes[0].ref))
    extras, extra_notes = _extras(job, fetcher)
    return Sources(
        image=image, mask=mask, extras=extras, notes=(*image_notes, *mask_notes, *extra_notes)
    )


def _one(
    reference: str | None, field: str, fetcher: SourceFetcher
) -> tuple[SourceImage | None, list[GenMetadata]]:
    if reference is None:
        return None, []
    read = decode_mask if field == "source_mask" else decode
    kind = MetadataType(field)
    try:
        decoded = read(fetcher.fetch(reference, field), field)
    except _LOST as error:
        return None, [_left_out(kind, error)]
    return decoded.image, [
        GenMetadata(kind, MetadataValue.SEE_REF, change) for change in decoded.changes
    ]


def _extras(
    job: Job, fetcher: SourceFetcher
) -> tuple[tuple[tuple[SourceImage, float], ...], list[GenMetadata]]:
    if job.extra_sources and job.source_processing != "remix":
        told = "only remix uses them: they had no effect"
        return (), [GenMetadata(MetadataType.EXTRA_SOURCE_IMAGES, MetadataValue.SEE_REF, told)]
    images: list[tuple[SourceImage, float]] = []
    notes: list[GenMetadata] = []
    for index, extra in enumerate(job.extra_sources):
        field = f"extra_source_images[{index}]"
        try:
            images.append(_extra(extra, field, fetcher))
        except _LOST as error:
            notes.append(_left_out(MetadataType.EXTRA_SOURCE_IMAGES, error))
    return tuple(images), notes


def _extra(extra: ExtraSource, field: str, fetcher: SourceFetcher) -> tuple[SourceImage, float]:
    if not 0 <= extra.strength <= MAX_STRENGTH:
        raise InvalidParams(f"{field}.strength", extra.strength, f"0 to {MAX_STRENGTH:g}")
    return decode(fetcher.fetch(extra.image, field), field).image, extra.strength


def _left_out(kind: MetadataType, error: JobError) -> GenMetadata:
    """The note that the picture was made without it, and why."""
    is_missing = isinstance(error, DownloadFailed)
    value = MetadataValue.DOWNLOAD_FAILED if is_missing else MetadataValue.PARSE_FAILED
    return GenMetadata(kind, value, str(error))


def _from_base64(text: str, field: str) -> bytes:
    if len(text) > _LONGEST_BASE64:
        raise BadSource(f"{field}: {len(text)} letters of base64: at most {_LONGEST_BASE64}")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSource(f"{field}: neither an http(s) address nor base64") from error


def _target(url: str) -> Url:
    """The parts of an address that may be asked. Raises BadSource."""
    try:
        target = parsed(url)
    except ValueError as error:
        raise BadSource("not an address that can be read") from error
    if target.scheme not in _SCHEMES:
        raise BadSource(f"the scheme {str(target.scheme)[:20]!r}: expected http or https")
    if not target.host or target.auth is not None:
        raise BadSource("an address without a host, or with a password in it")
    return target


def _raise_for_status(target: Url, answer: HttpAnswer) -> None:
    if answer.status == 200:
        return
    if answer.status in (408, 429) or answer.status >= 500:
        pause_seconds = retry_after_seconds(answer.headers)
        raise TryLater(f"{target.host}: HTTP {answer.status}", pause_seconds)
    plain = f"HTTP {answer.status}"
    raise DownloadFailed(f"{target.host}: {_WHAT_A_STATUS_MEANS.get(answer.status, plain)}")

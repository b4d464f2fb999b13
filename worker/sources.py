"""A job's source pictures, from where the horde's answer says they are.

What an address leads to is a stranger's: only http and https are spoken, only addresses that the
horde may send us to are connected to, nothing of the owner's (key, proxy, cookies, .netrc) goes
there, and size, time and redirects are bounded.
"""

from __future__ import annotations

import binascii
import socket
import ssl
import time
from base64 import b64decode
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from threading import Timer
from types import MappingProxyType
from urllib.parse import urljoin

import urllib3
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection
from urllib3.exceptions import LocationValueError
from urllib3.util import Url, parse_url

from hordelib.errors import BadSource, DownloadFailed, InvalidParams, JobError
from hordelib.gen_metadata import GenMetadata, MetadataType, MetadataValue
from hordelib.images import SourceImage
from hordelib.source_images import MAX_BYTES, decode, decode_mask
from hordelib.sources import Sources
from worker.addresses import Address, Reach, addresses, may_lead_to, reach
from worker.backoff import Backoff
from worker.network_reasons import network_reason
from worker.wire import ExtraSource, Job

CONNECT_SECONDS = 5.0
MAX_REDIRECTS = 3
MAX_STRENGTH = 5.0

_PORTS: Mapping[str | None, int] = MappingProxyType({"http": 80, "https": 443})
_CHUNK_BYTES = 64 * 1024
_LONGEST_BASE64 = 4 * (MAX_BYTES // 3 + 1)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_WHAT_A_STATUS_MEANS: Mapping[int, str] = MappingProxyType(
    {
        403: "HTTP 403: the address has expired",
        404: "HTTP 404: it is not there",
        410: "HTTP 410: it is gone",
    }
)


class _TryAgain(DownloadFailed):
    """The same request may succeed a little later."""

    def __init__(self, message: str, pause_seconds: float | None = None):
        super().__init__(message)
        self.pause_seconds = pause_seconds


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes  # empty but for status 200


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
        self._horde_host = _bare_host(parse_url(horde_url))
        self._client_agent = client_agent
        self._seconds = seconds
        self._try_seconds = try_seconds
        self._tls = ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)

    def fetch(self, reference: str, field: str = "source_image") -> bytes:
        """The bytes behind an http(s) URL, or in base64.

        Raises BadSource where they can't be asked for or are too many, DownloadFailed where they
        could not be had in time. Messages begin with `field`, and hold no more of a URL than its
        host.
        """
        if "://" not in reference:
            return _from_base64(reference, field)
        try:
            return self._patiently(reference, time.monotonic() + self._seconds)
        except _TryAgain as error:
            raise DownloadFailed(f"{field}: {error}") from error
        except (BadSource, DownloadFailed) as error:
            raise type(error)(f"{field}: {error}") from error

    def _patiently(self, url: str, until: float) -> bytes:
        backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            try:
                return self._follow(url, min(until, time.monotonic() + self._try_seconds))
            except _TryAgain as error:
                pause_seconds = backoff.delay(error.pause_seconds)
                if time.monotonic() + pause_seconds >= until:
                    raise
                time.sleep(pause_seconds)

    def _follow(self, url: str, until: float) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            target = _target(url)
            answer = self._get(target, until)
            if answer.status == 200:
                return answer.body
            location = _location(target, answer)
            if target.scheme == "https" and not location.lower().startswith("https:"):
                raise BadSource(f"{target.host}: redirects from https to something else")
            url = location
        raise BadSource(f"{_target(url).host}: more than {MAX_REDIRECTS} redirects")

    def _get(self, target: Url, until: float) -> _Answer:
        headers = {"User-Agent": self._client_agent, "Accept-Encoding": "identity"}
        left_seconds = max(0.1, until - time.monotonic())
        try:
            with (
                closing(self._connected(target, until)) as plain,
                _ending(plain, until),
                closing(self._secured(plain, target)) as wire,
                closing(
                    HTTPConnection(str(target.host), target.port, timeout=left_seconds)
                ) as http,
            ):
                http.sock = wire  # so that it goes to the address that was checked, and no other
                http.request("GET", target.request_uri, headers=headers, preload_content=False)
                answer = _read(http, target)
        except ssl.SSLCertVerificationError as error:
            raise DownloadFailed(f"{target.host}: {network_reason(error)}") from error
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise _TryAgain(f"{target.host}: {_reason(error, until)}") from error
        if time.monotonic() >= until:  # a body without a length ends like this, too
            raise _TryAgain(f"{target.host}: {_TOO_SLOW}")
        return answer

    def _connected(self, target: Url, until: float) -> socket.socket:
        port = target.port or _PORTS[target.scheme]
        problem: OSError = TimeoutError("timed out")
        for address in self._allowed(target, port):
            left_seconds = min(CONNECT_SECONDS, until - time.monotonic())
            if left_seconds <= 0:
                break
            try:
                return socket.create_connection((str(address), port), timeout=left_seconds)
            except OSError as error:
                problem = error
        raise problem

    def _allowed(self, target: Url, port: int) -> list[Address]:
        """Addresses of the target's host; raises BadSource where none may be connected to."""
        found = addresses(_bare_host(target), port)
        horde = self._horde_reach() if any(reach(one) is not Reach.PUBLIC for one in found) else ()
        allowed = [one for one in found if may_lead_to(one, frozenset(horde))]
        if not allowed:
            near = ", ".join(reach(one).name.lower() for one in found)
            raise BadSource(f"{target.host}: a {near} address, where this horde has no business")
        return allowed

    def _horde_reach(self) -> frozenset[Reach]:
        try:
            return frozenset(map(reach, addresses(self._horde_host, 0)))
        except OSError:
            return frozenset()

    def _secured(self, plain: socket.socket, target: Url) -> socket.socket:
        if target.scheme == "http":
            return plain
        return self._tls.wrap_socket(plain, server_hostname=_bare_host(target))


def fetch_sources(job: Job, fetcher: SourceFetcher) -> Sources:
    """The decoded pictures of a job.

    Raises BadSource, DownloadFailed or InvalidParams for the picture and its mask. Extra pictures
    only add to it: one that can't be had is left out, and disclosed.
    """
    image, image_notes = _one(job.source_image, "source_image", fetcher)
    mask, mask_notes = _one(job.source_mask, "source_mask", fetcher)
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
    decoded = read(fetcher.fetch(reference, field), field)
    kind = MetadataType(field)
    return decoded.image, [
        GenMetadata(kind, MetadataValue.SEE_REF, change) for change in decoded.changes
    ]


def _extras(
    job: Job, fetcher: SourceFetcher
) -> tuple[tuple[tuple[SourceImage, float], ...], list[GenMetadata]]:
    if job.extra_sources and job.source_processing != "remix":
        return (), [_of_extra(MetadataValue.SEE_REF, "only remix uses them: they had no effect")]
    images: list[tuple[SourceImage, float]] = []
    notes: list[GenMetadata] = []
    for index, extra in enumerate(job.extra_sources):
        field = f"extra_source_images[{index}]"
        try:
            images.append(_extra(extra, field, fetcher))
        except DownloadFailed as error:
            notes.append(_of_extra(MetadataValue.DOWNLOAD_FAILED, str(error)))
        except JobError as error:
            notes.append(_of_extra(MetadataValue.PARSE_FAILED, str(error)))
    return tuple(images), notes


def _extra(extra: ExtraSource, field: str, fetcher: SourceFetcher) -> tuple[SourceImage, float]:
    if not 0 <= extra.strength <= MAX_STRENGTH:
        raise InvalidParams(f"{field}.strength", extra.strength, f"0 to {MAX_STRENGTH:g}")
    return decode(fetcher.fetch(extra.image, field), field).image, extra.strength


def _of_extra(value: MetadataValue, told: str) -> GenMetadata:
    return GenMetadata(MetadataType.EXTRA_SOURCE_IMAGES, value, told)


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
        target = parse_url(url)
    except LocationValueError as error:
        raise BadSource("not an address that can be read") from error
    if target.scheme not in _PORTS:
        raise BadSource(f"the scheme {str(target.scheme)[:20]!r}: expected http or https")
    if not target.host or target.auth is not None:
        raise BadSource("an address without a host, or with a password in it")
    return target


def _bare_host(url: Url) -> str:
    """Without the brackets around an IPv6 address."""
    return str(url.host).strip("[]")


def _location(target: Url, answer: _Answer) -> str:
    """Where a redirect leads; raises what any other status means."""
    if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
        return urljoin(target.url, answer.headers["Location"])
    if answer.status in (408, 429) or answer.status >= 500:
        pause = answer.headers.get("Retry-After", "")
        seconds = float(pause) if pause.isdecimal() else None
        raise _TryAgain(f"{target.host}: HTTP {answer.status}", seconds)
    plain = f"HTTP {answer.status}"
    raise DownloadFailed(f"{target.host}: {_WHAT_A_STATUS_MEANS.get(answer.status, plain)}")


def _read(http: HTTPConnection, target: Url) -> _Answer:
    response = http.getresponse()
    if response.status != 200:
        return _Answer(response.status, response.headers, b"")
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
        body += chunk
        if len(body) > MAX_BYTES:
            raise BadSource(f"{target.host}: more than {MAX_BYTES} bytes")
    return _Answer(response.status, response.headers, bytes(body))


_TOO_SLOW = "too slow"


def _reason(error: Exception, until: float) -> str:
    return _TOO_SLOW if time.monotonic() >= until else network_reason(error)


@contextmanager
def _ending(wire: socket.socket, until: float) -> Generator[None]:
    """Cuts the connection at `until`: a socket's own time-out starts anew at each byte."""
    with closing(wire.dup()) as twin:  # TLS takes the first one's file descriptor away
        timer = Timer(max(0.0, until - time.monotonic()), _cut, (twin,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(wire: socket.socket) -> None:
    with suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)

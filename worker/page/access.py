"""Who may come in: the password's hash, who has given it, and how often it may be tried."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

KIND = "scrypt"  # what a hash begins with, in place of a password
# 32 MiB and about 0.1 s for each try (n x r x 128 bytes), as RFC 7914 and OWASP advise for logins.
_COST, _BLOCK, _LANES = 2**15, 8, 1
_MOST_MEMORY_BYTES = 64 << 20
MOST_SESSIONS = 64  # browsers; the one that was idle the longest is forgotten for another
SESSION_SECONDS = 30 * 86400.0
TRIES, ALL_TRIES = 5, 50  # wrong passwords from one address, and from all, in TRY_SECONDS
TRY_SECONDS = 600.0
MOST_ADDRESSES = 1000


def hashed(password: str) -> str:
    """`scrypt:cost:salt:key`, to be kept in place of the password."""
    salt = secrets.token_bytes(16)
    return f"{KIND}:{_COST}:{_text(salt)}:{_text(_key(password, salt, _COST))}"


def is_hash(text: str) -> bool:
    return _parts(text) is not None


def fits(password: str, kept: str) -> bool:
    """Whether it is the one that was hashed. Takes as long for a wrong one."""
    parts = _parts(kept)
    if parts is None:
        return False
    cost, salt, key = parts
    return hmac.compare_digest(_key(password, salt, cost), key)


def _key(password: str, salt: bytes, cost: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(
        secret, salt=salt, n=cost, r=_BLOCK, p=_LANES, maxmem=_MOST_MEMORY_BYTES, dklen=32
    )


def _parts(text: str) -> tuple[int, bytes, bytes] | None:
    """Cost, salt and key; None for what is no hash of ours."""
    try:
        kind, cost, salt, key = text.split(":")
        parts = int(cost), base64.b64decode(salt, validate=True), base64.b64decode(key)
    except (ValueError, binascii.Error):
        return None
    is_ours = kind == KIND and parts[0] == _COST and len(parts[1]) == 16 and len(parts[2]) == 32
    return parts if is_ours else None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


class Sessions:
    """Browsers that have given the password. Only digests of their tokens are kept, in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._ends: OrderedDict[bytes, float] = OrderedDict()  # idle the longest comes first

    def begin(self) -> str:
        """The token of a new one."""
        while len(self._ends) >= MOST_SESSIONS:
            self._ends.popitem(last=False)
        token = secrets.token_urlsafe(32)
        self._ends[_digest(token)] = self._clock() + SESSION_SECONDS
        return token

    def has(self, token: str) -> bool:
        digest = _digest(token)
        end = self._ends.get(digest)
        if end is None or end < self._clock():
            self._ends.pop(digest, None)
            return False
        self._ends.move_to_end(digest)
        return True

    def end(self, token: str) -> None:
        self._ends.pop(_digest(token), None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Tries:
    """Wrong passwords of the last TRY_SECONDS, by address and in all; memory is bounded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._at: OrderedDict[str, list[float]] = OrderedDict()
        self._all: list[float] = []

    def wait_seconds(self, address: str) -> float:
        """Until another try of this address is heard; 0: it is now."""
        own = self._recent(self._at.get(_network(address), []))
        self._all = self._recent(self._all)
        waits = [
            times[-most] + TRY_SECONDS - self._clock()
            for times, most in ((own, TRIES), (self._all, ALL_TRIES))
            if len(times) >= most
        ]
        return max(waits, default=0.0)

    def begin(self, address: str) -> None:
        """Counted before it is known to be wrong, so that many at once count, too."""
        network = _network(address)
        self._at[network] = [*self._recent(self._at.get(network, [])), self._clock()][-TRIES:]
        self._at.move_to_end(network)
        while len(self._at) > MOST_ADDRESSES:
            self._at.popitem(last=False)
        self._all = [*self._recent(self._all), self._clock()][-ALL_TRIES:]

    def was_right(self, address: str) -> None:
        """Its own wrong ones are forgiven, and the last of all is none."""
        self._at.pop(_network(address), None)
        self._all = self._all[:-1]

    def _recent(self, times: list[float]) -> list[float]:
        since = self._clock() - TRY_SECONDS
        return [at for at in times if at > since]


def _network(address: str) -> str:
    """Of IPv6 the half that a provider gives to one household: it has 2^64 addresses."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))

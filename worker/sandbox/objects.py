"""Object storage behind presigned URLs: uploads of workers, and clients' source pictures.

A URL allows one method on one object until it expires. Like the real store it does not look at
what is uploaded, only at the signature.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Literal
from urllib.parse import urlencode

Bucket = Literal["transient", "sources"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """`digests` has the SHA-256 of all that was ever put under the name, the newest last."""

    data: bytes
    content_type: str
    digests: tuple[str, ...]


class Forbidden(Exception):
    """The signature is wrong, for another object or method, or has expired."""


class ObjectStore:
    """Thread-safe; `clock` is in seconds since the epoch."""

    def __init__(self, clock: Callable[[], float], life_seconds: int):
        self._clock = clock
        self._life_seconds = life_seconds
        self._secret = secrets.token_bytes(32)
        self._objects: dict[tuple[str, str], StoredObject] = {}
        self._lock = Lock()

    def put(self, bucket: Bucket, name: str, data: bytes, content_type: str) -> None:
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            before = self._objects.get((bucket, name))
            digests = (*before.digests, digest) if before else (digest,)
            self._objects[bucket, name] = StoredObject(data, content_type, digests)

    def get(self, bucket: str, name: str) -> StoredObject | None:
        with self._lock:
            return self._objects.get((bucket, name))

    def presign(
        self, method: str, bucket: Bucket, name: str, *, issued_at: float | None = None
    ) -> str:
        """Path and query of a URL that works for life_seconds from `issued_at`, or from now."""
        start = self._clock() if issued_at is None else issued_at
        date, life = f"{start:.3f}", str(self._life_seconds)
        path = f"/{bucket}/{name}"
        query = {
            "X-Amz-Date": date,
            "X-Amz-Expires": life,
            "X-Amz-SignedHeaders": "host",
            "X-Amz-Signature": self._sign(method, path, date, life),
        }
        return f"{path}?{urlencode(query)}"

    def check(self, method: str, path: str, query: Mapping[str, str]) -> None:
        """Raises Forbidden unless the query was signed here for this call and is still valid."""
        date, life = query.get("X-Amz-Date", ""), query.get("X-Amz-Expires", "")
        signature = query.get("X-Amz-Signature", "")
        expected = self._sign(method, path, date, life)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Forbidden("SignatureDoesNotMatch")
        if self._clock() > float(date) + float(life):
            raise Forbidden("AccessDenied")

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()

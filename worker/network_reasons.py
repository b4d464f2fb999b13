"""Why a call over the network failed, in words for its owner."""

from __future__ import annotations

import re
import socket

# What requests and urllib3 bury in their errors' names and messages, and what it means.
_REASONS = (
    ("NameResolutionError", "no such host"),
    ("Failed to resolve", "no such host"),
    ("Connection refused", "connection refused"),
    ("timed out", "timed out"),
    ("CERTIFICATE_VERIFY_FAILED", "no valid certificate"),
    ("SSLError", "TLS could not be agreed on"),
    ("Connection reset", "the connection was cut"),
    ("RemoteDisconnected", "the connection was cut"),
    ("IncompleteRead", "the answer was cut off"),
)


def network_reason(error: Exception) -> str:
    """One line without the query of any address: a presigned one is a password."""
    if isinstance(error, socket.gaierror):
        return "no such host"
    text = str(error)
    plain = re.sub(r"\?\S*", "?…", " ".join(text.split())[:300])
    named = f"{type(error).__name__}: {text}"
    return next((told for sign, told in _REASONS if sign in named), plain)

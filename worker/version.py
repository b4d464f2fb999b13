"""The version, in the one place that the package, its agent at sites and `--version` read."""

from __future__ import annotations

VERSION = "0.2.0"

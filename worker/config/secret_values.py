"""What nobody but the owner may see of a configuration."""

from __future__ import annotations

from pydantic import SecretStr

from worker.config.keys import SECRETS, BridgeConfig


def secrets_of(config: BridgeConfig) -> tuple[str, ...]:
    """Keys, tokens, passwords, and the addresses of `notify`, which may hold some."""
    found: list[str] = []
    for key in sorted(SECRETS):
        value: SecretStr | tuple[SecretStr, ...] | None = getattr(config, key)
        values = value if isinstance(value, tuple) else (value,)
        found += [each.get_secret_value() for each in values if each is not None]
    return tuple(found)

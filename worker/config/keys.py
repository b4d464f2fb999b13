"""All keys of bridgeData.yaml: each one's type, bounds, default and words are in one place.

They are in three parts: what is served, the machine, and here what is told to whom. In
docs/configuration.md the same stands for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, StrictInt

from worker.config.card_keys import CardKeys
from worker.config.live import LiveConfig
from worker.config.machine_keys import MachineKeys
from worker.config.served_keys import CustomModel
from worker.config.values import (
    BaseUrl,
    BridgeAgent,
    ListeningAddress,
    NoticeKind,
    NotifyAddresses,
    PageAddress,
    Password,
    ReferenceAddress,
    Token,
    YesNo,
    expects,
    seconds,
    whole,
)


class BridgeConfig(MachineKeys, LiveConfig):
    """What the owner wants. Below each key stands what its value does, as the docs say it."""

    notify: Annotated[
        NotifyAddresses,
        expects('a list of addresses of apprise, such as "ntfys://my-topic"', max_length=20),
    ] = ()
    """Where the worker writes to when it needs you, as docs/service.md explains. Empty: nowhere."""
    notify_skip: Annotated[
        tuple[NoticeKind, ...],
        expects(
            "a list of maintenance, stopped, disk, no_jobs, model_withdrawn and new_version, or of"
            " some of these"
        ),
    ] = ()
    """What notify stays silent about."""
    notify_no_jobs_hours: Annotated[StrictInt, whole(1, 168, " of hours")] = 6
    """After so many hours without a job notify writes, if the horde has requests for your
    models."""
    metrics: Annotated[
        ListeningAddress | None, expects("an address with a port, such as 127.0.0.1:7862")
    ] = None
    """Where programs that watch other programs find figures (/metrics, for Prometheus), /healthz
    and /readyz. Not set: nowhere."""
    metrics_key: Annotated[Token | None, expects("a key without spaces")] = None
    """The password of /metrics, as a bearer token. Not set: whoever reaches it may read it."""
    stats_output_frequency: Annotated[StrictInt, seconds(0, 86400)] = 30
    """Seconds between two lines of statistics; 0 for none."""
    horde_url: Annotated[
        BaseUrl,
        expects(
            "an address such as https://aihorde.net (http:// only for this machine or a private "
            "network address)"
        ),
    ] = "https://aihorde.net"
    """The horde that is served."""
    model_reference: Annotated[
        ReferenceAddress | None,
        expects(
            "none, or an address such as https://example.org/reference of a folder with the "
            "horde's JSON lists (stable_diffusion.json); one that ends with /v2 has the new names"
        ),
    ] = None
    """Where the list of models, their files and their sha256 comes from. Not set: the AI
    Horde's own; nowhere for a horde on this machine."""
    bridge_agent: Annotated[
        BridgeAgent | None, expects("name:version:url, at most 1000 characters")
    ] = None
    """How the worker introduces itself; the horde grants features, and shares of the rewards, by
    name and version. Not set: as the newest worker that it knows, or an older one where files are
    missing."""
    page: Annotated[
        PageAddress,
        expects('an address of this machine such as http://127.0.0.1:7861, or "" for no page'),
    ] = "http://127.0.0.1:7861"
    """Where a browser shows the worker (docs/page.md). Others than this machine come in by an
    address such as http://0.0.0.0:7861, and only with page_password."""
    page_password: Annotated[
        Password | None, expects("a password of 8 to 1000 characters, or the hash kept of one")
    ] = None
    """Whoever opens the page has to give it. The start of `run` puts a hash in its place."""
    auto_update: Annotated[Literal["tell", "drain", "never"], expects("tell, drain or never")] = (
        "tell"
    )
    """tell: check and the page name a newer release, which GitHub is asked for once a day. drain: a
    clone finishes what is in hand, takes it and starts again, too. never: nobody is asked."""
    show_pictures: YesNo = False
    """true: the page shows the last 12 pictures to whoever may open it, though the horde's users
    did not ask for them to be seen. They are kept in memory alone, small and without their prompts;
    those found not safe for work stay blurred."""
    notes: tuple[str, ...] = ()
    """Lines for the owner, shown once at start: old keys of the file and what became of them."""


def _expected(model: type[BaseModel]) -> Mapping[str, str]:
    fields = model.model_fields.items()
    extras: dict[str, Any] = {name: field.json_schema_extra for name, field in fields}
    return {name: extra["expects"] for name, extra in extras.items() if extra}


SECRETS = frozenset(
    name
    for name, field in BridgeConfig.model_fields.items()
    if "SecretStr" in repr(field.annotation)
)  # whose values are never shown
EXPECTS = _expected(BridgeConfig)  # by the names of all keys: what completes "expected …"
ENTRY_EXPECTS = {"custom_models": _expected(CustomModel), "devices": _expected(CardKeys)}
"""The same for the fields of lists' entries."""

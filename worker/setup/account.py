"""Whether the horde is there, knows the api key, and lets this account have the worker's name."""

from __future__ import annotations

from collections.abc import Iterator

from worker.config.keys import BridgeConfig
from worker.errors import HordeError, NotAllowed
from worker.horde.accounts import Account
from worker.horde.client import HordeClient
from worker.horde.kinds import Kind, names_of
from worker.horde.refusals import END_MAINTENANCE
from worker.line.popper import insist_on_own_name
from worker.service.assembly import make_client
from worker.setup.finding import Finding, Verdict, failed, ok

HORDE, API_KEY, WORKER_NAME = "horde", "api key", "worker name"
CUSTOM_MODELS = "custom models"
_NO_CUSTOMIZER = "this account has no customizer role, so the horde refuses a worker with them"
_CUSTOMIZER_REMEDY = "ask the horde's moderators for that role, or leave custom_models out"


def account_findings(config: BridgeConfig) -> Iterator[Finding]:
    """About the horde, the api key and the name, as far as one depends on the other.

    Where the horde can't be reached, that is the last thing said, as HORDE.
    """
    with make_client(config) as client:
        try:
            client.heartbeat()
            yield ok(HORDE, config.horde_url)
            account = _account(client)
            if isinstance(account, Finding):
                yield account
                return
            yield ok(API_KEY, f"{account.username}, {account.kudos:.0f} kudos")
            for kind, name in names_of(config).items():
                yield worker_name(client, name, account, kind)
            if config.custom_models and not account.customizer:
                yield failed(CUSTOM_MODELS, _NO_CUSTOMIZER, _CUSTOMIZER_REMEDY)
        except HordeError as error:
            otherwise = f"check horde_url ({config.horde_url})"
            yield failed(
                HORDE, str(error), error.remedy if isinstance(error, NotAllowed) else otherwise
            )


def _account(client: HordeClient) -> Account | Finding:
    try:
        return client.whoami()
    except NotAllowed as error:
        return failed(API_KEY, str(error), error.remedy)


def worker_name(
    client: HordeClient, name: str, account: Account, kind: Kind = Kind.image
) -> Finding:
    """Raises HordeError where the horde can't be asked."""
    try:
        record = client.worker_by_name(name, account)
        insist_on_own_name(account, record, kind)
    except NotAllowed as error:
        return failed(WORKER_NAME, str(error), kind.in_its_keys(error.remedy))
    if record is None:
        return ok(WORKER_NAME, f"{name!r}, {_NOT_ASKED if '/' in name else 'new'}")
    if not account.owns(record):
        told = f"{name!r} exists, and the horde does not say yet whose it is"
        other = kind.in_its_keys(_OTHER_NAME)
        remedy = f"nothing, if you have just begun to use it; if it is not yours, {other}"
        return Finding(WORKER_NAME, Verdict.warning, told, remedy)
    if record.paused:
        told = f"{name!r} is paused: it gets no real jobs and earns nothing"
        return failed(WORKER_NAME, told, "ask the horde's moderators why")
    if record.maintenance_mode:
        told = f"{name!r}, yours, is in maintenance: the horde gives it your own jobs alone"
        return Finding(WORKER_NAME, Verdict.warning, told, END_MAINTENANCE)
    return ok(WORKER_NAME, f"{name!r}, yours")


_OTHER_NAME = "choose another dreamer_name"
_NOT_ASKED = "none of yours yet; whether it is free can't be asked of a name with a slash"

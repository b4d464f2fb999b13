"""The `notify` command: a trial notice to each address of `notify`, and what `check` says of them.

An address is named by its place and its service, since it may hold a password.
"""

from __future__ import annotations

from collections.abc import Iterator

from worker.cli.exit_codes import ExitCode
from worker.command_line import INSTALL_NOTIFY, LAUNCHER, as_typed
from worker.config.keys import BridgeConfig
from worker.errors import UsageError
from worker.notices.posting import NOT_INSTALLED, Sent, is_installed, post
from worker.setup.finding import Finding, Verdict, failed, ok

_NONE = (
    'bridgeData.yaml has no address to write to; add one, such as notify: ["ntfys://my-topic"]'
    " (docs/service.md, Notices)"
)
_TRIAL = "This is a trial. Notices of this worker reach you here."


def notify(config: BridgeConfig) -> int:
    """Send a trial to each address; FAILED where one did not take it. Raises UsageError."""
    if not config.notify:
        raise UsageError(_NONE)
    sent = _post(config, f"Dreamer, {config.dreamer_name}: a trial", _TRIAL)
    for each in sent:
        print(f"{each.name}: {as_typed(each.problem) or 'sent'}")
    return ExitCode.FAILED if any(each.problem for each in sent) else ExitCode.OK


def addresses_of_notices(config: BridgeConfig) -> Iterator[Finding]:
    """Whether apprise is there and knows the addresses; nothing is sent. None where none is set."""
    if not config.notify:
        return
    if not is_installed():
        yield Finding(
            "notify", Verdict.warning, NOT_INSTALLED.partition(":")[0], f"run {INSTALL_NOTIFY}"
        )
        return
    for each in (sent := _post(config, "", "")):
        if each.problem:
            remedy = "correct it as apprise's own documentation says, or take it out of notify"
            yield failed("notify", f"{each.name}: {each.problem}", remedy)
    if not any(each.problem for each in sent):
        names = ", ".join(each.name for each in sent)
        yield ok("notify", f"{names}; {LAUNCHER} notify sends a trial")


def _post(config: BridgeConfig, title: str, body: str) -> tuple[Sent, ...]:
    return post([each.get_secret_value() for each in config.notify], title, body)

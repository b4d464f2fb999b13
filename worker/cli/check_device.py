"""What `check` says of torch and of the card: whether one computes on the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from hordelib.comfyui.device_faults import Culprit, row_named
from hordelib.comfyui.fast import SWITCHES, lack
from hordelib.setup import torch_builds
from worker.devices import Card, TorchProbe, ask_torch, first_card, is_wsl
from worker.errors import EngineUnusable
from worker.setup.finding import Finding, Verdict, failed, ok

SET_UP = "run ./update-runtime.sh"
NO_CARD = "CPU (no NVIDIA card found; pictures take minutes instead of seconds)"
FILLED = "end other programs that have memory of the card (nvidia-smi names them)"
BROKEN_DRIVER = "reboot, or install the driver again"
MOST_USERS = 5


def device(fast: Collection[str] = ()) -> Iterator[Finding]:
    """Torch, the card, and who has memory of it; a small computation is run on the card.

    `fast` is what the owner asks for by that key.
    """
    try:
        probe = ask_torch()
    except EngineUnusable as error:
        yield failed("torch", str(error), SET_UP)
        return
    cuda = f"CUDA {probe.cuda}" if probe.cuda else "for the CPU alone"
    yield ok("torch", f"{probe.version}, {cuda}")
    try:
        card = first_card()
    except EngineUnusable as error:
        yield failed("device", str(error), BROKEN_DRIVER)
        return
    if card is None:
        yield ok("device", NO_CARD)
    else:
        yield on_card(card, probe)
        yield ok("card memory", _memory(card))
    yield from switches(fast, card, probe)


def switches(names: Collection[str], card: Card | None, probe: TorchProbe) -> Iterator[Finding]:
    """Which of the faster ways that the owner asks for will be gone, and why not the others."""
    known = card and (card.capability or (probe.card and probe.card.capability))
    for name in names:
        reason = lack(name, known or None, probe.version)
        if reason:
            package = SWITCHES[name].package
            install = (
                f".venv/bin/pip install {package}, or " if package and package in reason else ""
            )
            remedy = f"{install}take {name} out of fast"
            yield Finding("fast", Verdict.warning, f"{name} is left out: {reason}", remedy)
        else:
            differ = "stay as they are" if SWITCHES[name].allocator else "differ a little"
            yield ok("fast", f"{name} is on; pictures {differ}")


def on_card(card: Card, probe: TorchProbe) -> Finding:
    """Whether torch computes on it; where it does not, why, and what would."""
    if card.capability is None and probe.card is not None:
        card = replace(card, capability=probe.card.capability)
    named = _named(card)
    if probe.kernels and card.capability and not has_kernels(probe.kernels, card.capability):
        told = f"torch {probe.version} has no kernels for it: it has {', '.join(probe.kernels)}"
        return failed("device", f"{named}; {told}", f"{SET_UP}: {which_torch(card)}")
    if probe.error:
        return failed(
            "device", f"{named}; it does not compute: {probe.error}", _remedy(probe, card)
        )
    if probe.card is None:
        return failed(
            "device", f"{named}, but torch can't use it", f"{SET_UP}: {which_torch(card)}"
        )
    return ok("device", f"{named}; a small computation is right")


def has_kernels(kernels: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """CUDA runs a kernel on cards of the same major capability from its own minor one up, and
    compiles the code that compute_XY has for any newer card.

    >>> has_kernels(("sm_75", "sm_86"), (8, 9)), has_kernels(("sm_75",), (6, 1))
    (True, False)
    """
    for name in kernels:
        kind, _, number = name.partition("_")
        digits = number.rstrip("af")  # sm_90a and sm_100f are for their own kind of card
        if not digits.isdecimal():
            continue
        least = divmod(int(digits), 10)
        if kind == "compute" and least <= capability:
            return True
        if kind == "sm" and least[0] == capability[0] and least[1] <= capability[1]:
            return True
    return False


def which_torch(card: Card) -> str:
    """The one that update-runtime.sh would install, and why."""
    found = torch_builds.Card(card.name, card.capability, card.driver)
    return torch_builds.chosen(torch_builds.AUTO, [found] if card.driver else []).reason


def _remedy(probe: TorchProbe, card: Card) -> str:
    row = row_named(probe.error)
    if row is None or row.culprit in (Culprit.card, Culprit.model):
        return BROKEN_DRIVER
    return FILLED if row.culprit is Culprit.size else f"{row.remedy} ({which_torch(card)})"


def _named(card: Card) -> str:
    known = card.capability
    parts = [
        card.name,
        f"compute capability {known[0]}.{known[1]}" if known else "",
        f"driver {card.driver}" if card.driver else "no NVML here, so CUDA is asked",
        "in WSL" if is_wsl() else "",
    ]
    return ", ".join(filter(None, parts))


def _memory(card: Card) -> str:
    free = f"{card.free_bytes >> 20} of {card.memory_bytes >> 20} MiB free"
    if not card.users:
        return free
    more = len(card.users) - MOST_USERS
    named = [*card.users[:MOST_USERS], *([f"{more} more"] if more > 0 else [])]
    return f"{free}; used by {', '.join(named)}"

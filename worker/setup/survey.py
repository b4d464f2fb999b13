"""A look at the machine and at the horde's list of models, for whoever sets a worker up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hordelib.errors import HordelibError, ModelMissing
from hordelib.files.names import ModelStore
from hordelib.memory.readings import Memory, main_memory
from worker.clock import elapsed_seconds
from worker.config.config import config_of
from worker.config.values import CLIENT_AGENT, is_word
from worker.devices import Card, first_card
from worker.errors import DocumentMissing, EngineUnusable
from worker.models.files.on_disk import size_text
from worker.models.inventory import ModelsFolder, too_new
from worker.models.memory_fit import ComputeMemory
from worker.models.reference import Kind
from worker.models.selection import nearest
from worker.models.sites import read_uses
from worker.net.fetch import Web
from worker.setup.answers import ENOUGH
from worker.setup.proposal import ProposedModel, propose

SPEED_SECONDS, SPEED_BYTES = 3.0, 32 << 20  # of a measurement, whichever is over first
CONNECT_SECONDS = 10.0
MOST_SITES = 3  # that are tried for it


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `bytes_per_second` is None where nothing could be downloaded.

    `notes` are lines for the owner: what could not be looked at, and why.
    """

    card: Card | None
    memory: Memory
    free_bytes: int
    folder: Path
    bytes_per_second: float | None
    models: tuple[ProposedModel, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """Name and figures of each part, for people."""
        gib = 1 << 30
        card = "none found: pictures take minutes instead of seconds"
        if self.card:
            free, total = self.card.free_bytes / gib, self.card.memory_bytes / gib
            card = f"{self.card.name}, {free:.1f} of {total:.1f} GiB of its memory free"
        free, total = self.memory.free_bytes / gib, self.memory.total_bytes / gib
        speed = "not measured"
        if self.bytes_per_second is not None:
            speed = f"{size_text(int(self.bytes_per_second))} a second, from where models come from"
        return (
            ("card", card),
            ("memory", f"{free:.1f} of {total:.1f} GiB free"),
            ("disk", f"{size_text(self.free_bytes)} free for {self.folder}"),
            ("network", speed),
        )

    def download_seconds(self, size_bytes: int) -> float | None:
        """How long so much takes to arrive."""
        if not self.bytes_per_second:
            return None
        return size_bytes / self.bytes_per_second


def survey(home: Path, place: Mapping[str, object], *, measures_speed: bool = True) -> Survey:
    """Takes some seconds. `place`: keys that say where things are, beside the environment's.

    Raises ConfigError for a `place` that can't be used.
    """
    config = config_of({**ENOUGH, **place})
    folder = ModelsFolder.of(config, home)
    notes: list[str] = []
    card = None
    try:
        card = first_card()
    except EngineUnusable as error:
        notes.append(str(error))
    reference = folder.reference([Kind.model])
    notes += reference.notes
    if not reference.models:
        notes.append("there is no list of models to choose from: write the names of yours")
    uses = None
    try:
        uses = read_uses(folder.documents, config.horde_url)
    except DocumentMissing as error:
        notes.append(f"how often models are used is not known: {error}")
    stocks = [folder.look(row) for row in reference.models if not row.is_pending]
    models = propose(
        stocks,
        uses,
        ComputeMemory.of(config, card),
        folder.free_bytes,
        too_new(folder, reference),
    )
    speed = None
    if measures_speed:
        urls = [
            file.url
            for row in models
            if not row.is_here
            for file in reference.entries[row.name].files[:1]
        ]
        speed = next(filter(None, map(download_speed, urls[:MOST_SITES])), None)
    return Survey(card, main_memory(), folder.free_bytes, folder.path, speed, models, tuple(notes))


def unknown_names(found: Survey, names: Iterable[str]) -> str:
    """Of those that are neither in the list, nor a group, nor a file in the models folder: one
    line; "" for none."""
    listed = [row.name for row in found.models]
    store = ModelStore(found.folder)
    for name in names:
        if listed and name not in listed and not is_word(name):
            try:
                store.checkpoint(name)
            except ModelMissing:
                return f"{name[:100]!r} is not in the horde's list{nearest(name, listed)}"
    return ""


def download_speed(url: str) -> float | None:
    """Bytes a second of the beginning of a file; None where it can't be had."""
    arrived, began = 0, time.monotonic()
    deadline = elapsed_seconds() + CONNECT_SECONDS + SPEED_SECONDS
    with suppress(HordelibError), Web(CLIENT_AGENT).get(url, deadline) as answer:
        began = time.monotonic()
        for chunk in answer.chunks:
            arrived += len(chunk)
            if arrived >= SPEED_BYTES or time.monotonic() - began >= SPEED_SECONDS:
                break
    return arrived / max(time.monotonic() - began, 0.001) if arrived else None

"""LoRAs and textual inversions of a job: found or downloaded, and noted where they can't be had."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from hordelib.errors import BaselineMismatch, DiskTrouble, DownloadFailed
from hordelib.files.embeddings import find, mentioned, without_references
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import GenerationParams, Lora
from hordelib.job.payload import LoraRequest, TiRequest
from hordelib.job.prompts import PlacedTi, pick_trigger
from worker.clock import elapsed_seconds
from worker.loras.files import LoraFile
from worker.loras.finder import LoraFinder, Wanted
from worker.loras.store import LoraStore

log = logging.getLogger(__name__)

QUIET_SECONDS = 3600.0  # between two lines that say that the disk keeps LoRAs away


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a job's LoRAs and textual inversions."""

    loras: tuple[Lora, ...] = ()
    triggers: tuple[str, ...] = ()
    tis: tuple[PlacedTi, ...] = ()
    notes: tuple[GenMetadata, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """For which job files are wanted, for a model of which baseline, and until when."""

    job_id: str
    baseline: str
    deadline: float  # elapsed_seconds()


class Adapters:
    """Finds them all. A file that was found is the job's until `release`."""

    def __init__(self, loras: LoraFinder, tis: LoraFinder):
        self._loras = loras
        self._tis = tis
        self._banned: frozenset[Path] = frozenset()
        self._quiet_until = 0.0  # elapsed_seconds()

    @property
    def loras(self) -> LoraStore:
        """Those on disk."""
        return self._loras.store

    def ban(self, file: Path) -> None:
        """Leave a LoRA or a textual inversion out of every job from now on."""
        self._banned |= {file}

    def without_banned(self, prompt: str, tis: Path) -> tuple[str, tuple[GenMetadata, ...]]:
        """The prompt without the banned textual inversions of a folder, and notes of them."""
        names = {path.stem for path in self._banned if path.parent == tis}
        return without_references(prompt, names) if names else (prompt, ())

    def find(
        self, loras: Sequence[LoraRequest], tis: Sequence[TiRequest], seed: int, search: Search
    ) -> Found:
        """What can't be had, or was made for other models, is left out and noted."""
        draws = Random(seed)
        found = Found()
        for lora in loras:
            found = self._with_lora(found, lora, draws, search)
        for ti in tis:
            found = self._with_ti(found, ti, search)
        return found

    def release(self, job_id: str) -> None:
        self._loras.release(job_id)
        self._tis.release(job_id)

    def _with_lora(self, found: Found, lora: LoraRequest, draws: Random, search: Search) -> Found:
        wanted = Wanted(lora.name, search.baseline, lora.is_version)
        file = self._find(self._loras, wanted, MetadataType.LORA, search)
        if isinstance(file, GenMetadata):
            return _noted(found, file)
        if file.path in self._banned:
            return _noted(found, _lacking(MetadataType.LORA, wanted))
        trigger = pick_trigger(lora.inject_trigger, file.about.triggers, draws)
        return replace(
            found,
            loras=(*found.loras, Lora(lora.name, file.path, lora.model, lora.clip)),
            triggers=(*found.triggers, trigger),
        )

    def _with_ti(self, found: Found, ti: TiRequest, search: Search) -> Found:
        file = self._find(self._tis, Wanted(ti.name, search.baseline), MetadataType.TI, search)
        if isinstance(file, GenMetadata):
            return _noted(found, file)
        if file.path in self._banned:
            return _noted(
                found, GenMetadata(MetadataType.TI, MetadataValue.DOWNLOAD_FAILED, ti.name)
            )
        placed = PlacedTi(file.path.stem, ti.inject_ti, ti.strength)
        return replace(found, tis=(*found.tis, placed))

    def _find(
        self, finder: LoraFinder, wanted: Wanted, kind: MetadataType, search: Search
    ) -> LoraFile | GenMetadata:
        """The file, or the note that says why there is none."""
        try:
            return finder.find(wanted, job_id=search.job_id, deadline=search.deadline)
        except BaselineMismatch as error:
            log.info("job %s is made without what it asks for: %s", search.job_id, error)
            return GenMetadata(kind, MetadataValue.BASELINE_MISMATCH, wanted.name)
        except DownloadFailed as error:
            if isinstance(error, DiskTrouble):
                self._tell(error)
            else:
                told = "job %s is made without %s %r: %s"
                log.info(told, search.job_id, finder.kind_name, wanted.name, error)
            return _lacking(kind, wanted)

    def _tell(self, trouble: DiskTrouble) -> None:
        """The client gets a note of each; the owner hears of it now and then."""
        now = elapsed_seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            log.warning("jobs are done without what can't be downloaded: %s", trouble)


def files_of(params: GenerationParams) -> tuple[Path, ...]:
    """Those that a job's client has named: LoRAs, and textual inversions in its prompts."""
    folder = params.embeddings_folder
    names = mentioned(params.prompt) + mentioned(params.negative_prompt)
    tis = [] if folder is None else [find(name, folder) for name in names]
    loras = [lora.path for lora in params.loras]
    return tuple(dict.fromkeys([*loras, *(path for path in tis if path is not None)]))


def without_files(
    params: GenerationParams,
) -> tuple[GenerationParams, tuple[GenMetadata, ...]]:
    """The job without those files, and a note for each."""
    prompt, notes = without_references(params.prompt)
    negative_prompt, negative_notes = without_references(params.negative_prompt)
    lora_notes = [
        GenMetadata(MetadataType.LORA, MetadataValue.PARSE_FAILED, lora.name)
        for lora in params.loras
    ]
    plain = replace(params, loras=(), prompt=prompt, negative_prompt=negative_prompt)
    return plain, tuple(dict.fromkeys([*lora_notes, *notes, *negative_notes]))


def _lacking(kind: MetadataType, wanted: Wanted) -> GenMetadata:
    return GenMetadata(kind, MetadataValue.DOWNLOAD_FAILED, wanted.name)


def _noted(found: Found, note: GenMetadata) -> Found:
    return replace(found, notes=(*found.notes, note))

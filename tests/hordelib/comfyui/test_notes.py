"""Whose notes they are: whatever ran before, a job gets its own, all of them, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from hordelib import Engine, GenerationParams
from hordelib.files.model import Model
from hordelib.job.batching import Member
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import Lora
from hordelib.job.samplers import SAMPLERS
from tests.hordelib.comfyui.test_loras import ensure_lora

T = TypeVar("T")
Job = tuple[GenerationParams, Sequence[GenMetadata]]  # with the notes that it is to get
Run = Sequence[Job]  # by jobs that share it

PLAIN = GenerationParams(
    prompt="a red circle", width=64, height=64, seed=3, steps=1, sampler=SAMPLERS["k_euler"]
)
OTHER = replace(PLAIN, prompt="a blue square", seed=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Textual inversions that can't be used, each for a reason of its own."""
    folder = tmp_path_factory.mktemp("ti")
    save_file({"emb_params": torch.ones(2, 1024)}, folder / "wide.safetensors")
    (folder / "torn.safetensors").write_bytes(b"<html>not found</html>")
    return folder


def pairs_in_a_row(kinds: Sequence[T]) -> Iterator[T]:
    """A sequence in which every kind follows every kind, itself included."""
    for i, kind in enumerate(kinds):
        yield kind
        for later in kinds[i + 1 :]:
            yield kind
            yield later
    yield kinds[0]


def ti(value: MetadataValue, name: str) -> GenMetadata:
    return GenMetadata(MetadataType.TI, value, name)


def quiet(params: GenerationParams) -> Job:
    """A job that gets none."""
    return params, ()


def wordy(number: int, folder: Path) -> Job:
    """A job with every note that a prompt can have, one of which names the run."""
    secret, hidden = f"secret{number}", f"hidden{number}"
    params = replace(
        PLAIN,
        prompt=f"a (red:50) circle, embedding:{secret}, embedding:wide, embedding:torn",
        negative_prompt=f"embedding:{hidden}",
        embeddings_folder=folder,
    )
    return params, [
        ti(MetadataValue.DOWNLOAD_FAILED, secret),
        ti(MetadataValue.BASELINE_MISMATCH, "wide"),
        ti(MetadataValue.PARSE_FAILED, "torn"),
        GenMetadata(
            MetadataType.INFORMATION,
            MetadataValue.SEE_REF,
            "weights in a prompt beyond 20 were brought down to it",
        ),
        ti(MetadataValue.DOWNLOAD_FAILED, hidden),
    ]


def run_all(engine: Engine, checkpoint: Path, runs: Iterator[Run]) -> None:
    model = Model.of_checkpoint(checkpoint)
    for run in runs:
        members = [Member(f"job {i}", params) for i, (params, _) in enumerate(run)]
        made = engine.generate_together(members, model)
        assert [each.notes for each in made] == [tuple(notes) for _, notes in run]


def test_notes_about_prompts_are_the_jobs_own_whatever_ran_before(
    engine: Engine, checkpoint: Path, folder: Path
):
    plain, other = (quiet(replace(each, embeddings_folder=folder)) for each in (PLAIN, OTHER))
    kinds: list[Callable[[int], Run]] = [
        lambda _: [plain],
        lambda _: [plain, other],
        lambda number: [wordy(number, folder)],
        lambda number: [wordy(number, folder), other],
        lambda number: [plain, wordy(number, folder)],
    ]
    runs = (kind(number) for number, kind in enumerate(pairs_in_a_row(kinds)))
    run_all(engine, checkpoint, runs)


def test_notes_about_loras_are_the_jobs_own_whatever_ran_before(
    engine: Engine, checkpoint: Path, models: Path, tmp_path: Path
):
    whole, torn, partly = (
        ensure_lora(models),
        tmp_path / "torn.safetensors",
        tmp_path / "partly.safetensors",
    )
    torn.write_bytes(b"<html>not found</html>")
    strange = {f"lora_unet_strange_{i}.lora_up.weight": torch.ones(4, 2) for i in range(4)}
    save_file(load_file(whole) | strange, partly)

    def loaded(number: int) -> Job:
        secret, hidden = f"secret{number}", f"hidden{number}"
        loras = (Lora(secret, torn), Lora("Fine", whole), Lora(hidden, partly))
        told = f"LoRA {hidden} fits in part: 10 of 14 parts fit, 0 can't be applied"
        return replace(PLAIN, loras=loras), [
            GenMetadata(MetadataType.LORA, MetadataValue.PARSE_FAILED, secret),
            GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told),
        ]

    def both_loaded(number: int) -> Run:
        params, notes = loaded(number)
        return [(params, notes), (replace(params, prompt=OTHER.prompt), notes)]

    kinds: list[Callable[[int], Run]] = [
        lambda _: [quiet(PLAIN)],
        lambda _: [quiet(PLAIN), quiet(OTHER)],
        lambda number: [loaded(number)],
        both_loaded,
    ]
    runs = (kind(number) for number, kind in enumerate(pairs_in_a_row(kinds)))
    run_all(engine, checkpoint, runs)


def test_what_comfyui_need_not_compute_again_keeps_its_notes(
    engine: Engine, checkpoint: Path, folder: Path
):
    job, other = wordy(1, folder), quiet(replace(OTHER, embeddings_folder=folder))
    again: list[Run] = [[job], [job], [job, other], [job, other], [other, job], [job]]
    run_all(engine, checkpoint, iter(again))

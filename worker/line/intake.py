"""From a popped job to work for the engine: read it, fetch what it names, say what is left out.

A job is faulted where its picture would not be what was asked for (no mask for what has to stay, no
control map without a source), and where another worker may do better: files that are missing here,
trouble of the network. What no worker could have (a source picture that is gone, a LoRA that is
nowhere) is left out and disclosed to the client, as the horde's other workers do: faulting costs
the client his turn, and the horde puts a worker that faults many jobs into maintenance.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from hordelib.errors import BadSource, JobError, ModelMissing, NotServed
from hordelib.files.model import Model
from hordelib.job import control_types, post_processors, questions, transparency
from hordelib.job.fitting import fit
from hordelib.job.images import SourceImage
from hordelib.job.notes import GenMetadata
from hordelib.job.params import Control, GenerationParams, QrCode, TextOnly, Transparency
from hordelib.job.payload import ControlRequest, JobRequest, changed, read_payload
from hordelib.job.prompts import complete_prompts
from hordelib.job.questions import Question, Topic
from hordelib.job.starts import Sources, flattened, to_source
from hordelib.pictures.qr_code import control_net_file, insist_on_room, read_qr_code
from worker.horde.api import Job
from worker.jobs.work import Work
from worker.line.source_fetcher import SourceFetcher, fetch_sources
from worker.loras.adapters import Adapters, Search
from worker.models.offered import OfferedModels

log = logging.getLogger(__name__)

FETCH_SHARE = 0.5  # of a job's time to live that fetching may take
TI_FOLDER = "ti"


class Intake:
    """How this worker reads jobs and makes work of them. Any thread may call.

    Args:
        offered: the models whose jobs are done.
        models_folder: with the files of ControlNets and post-processors.
        scores: pictures are scored, as long as the files for that are there and whole.
    """

    def __init__(
        self,
        offered: OfferedModels,
        models_folder: Path,
        sources: SourceFetcher,
        adapters: Adapters,
        *,
        scores: bool = False,
    ):
        self.offered = offered
        self.adapters = adapters
        self._folder = models_folder
        self._sources = sources
        self._scores = scores

    def take_in(self, job: Job) -> Work:
        """Read the job and fetch what it names, within a part of its time to live.

        Raises JobError (mostly InvalidParams, which names the field) for what can't be served.
        """
        model = self.offered.models.get(job.model)
        if model is None:
            raise JobError(f"model {job.model!r} is not one that this worker offers")
        request = read_payload(job.payload, images=len(job.ids))
        params, notes = self._complete(request, job, model)
        fitted, left_out = fit(params, model.family)
        return Work(job, fitted, model, request.use_nsfw_censor, (*notes, *left_out))

    def _complete(
        self, request: JobRequest, job: Job, model: Model
    ) -> tuple[GenerationParams, tuple[GenMetadata, ...]]:
        """The parameters with everything that the payload only names, and what there is to note."""
        params, baseline = request.params, model.family.name
        deadline = job.share_of_rest(FETCH_SHARE)
        processors = post_processors.resolve(self._folder, request.post_processing)
        qr_code, qr_notes = self._qr_code(request, baseline)
        transparent = self._transparency(request, baseline)
        if job.source_image is not None:
            self._insist_on_control_files(request.control)
        pictures = fetch_sources(job, self._sources)
        found = self.adapters.find(
            request.loras, request.tis, params.seed, Search(job.id, baseline, deadline)
        )
        tis = self._folder / TI_FOLDER
        prompts = complete_prompts(
            params.prompt, params.negative_prompt, params.seed, found.tis, found.triggers
        )
        (prompt, banned), (negative_prompt, more_banned) = (
            self.adapters.without_banned(text, tis) for text in prompts
        )
        params, source_notes = _start(params, request, job, pictures, model)
        control, control_notes = self._control(request.control, pictures.image)
        completed = replace(
            params,
            prompt=prompt,
            negative_prompt=negative_prompt,
            loras=found.loras,
            embeddings_folder=tis,
            control=control,
            return_control_map=bool(
                control and request.control and request.control.return_control_map
            ),
            post_processing=processors,
            qr_code=qr_code,
            transparent=transparent,
            scoring=self._scoring(),
        )
        notes = (*request.notes, *qr_notes, *source_notes, *control_notes, *found.notes)
        return completed, (*notes, *banned, *more_banned)

    def _scoring(self) -> Question | None:
        if not self._scores or questions.lacking(self._folder, Topic.aesthetic):
            return None
        scoring = questions.ask(self._folder, Topic.aesthetic)
        return scoring if self.offered.are_usable(scoring.files) else None

    def _insist_on_control_files(self, wanted: ControlRequest | None) -> None:
        """A map is drawn without the ControlNet, and a finished one is not drawn."""
        if wanted is None:
            return
        files = control_types.files_of(
            self._folder,
            wanted.type,
            net=not wanted.return_control_map,
            annotator=not wanted.image_is_control,
        )
        missing = ", ".join(file.path.name for file in files if not file.path.is_file())
        if missing:
            raise ModelMissing(f"control_type {wanted.type}: there is no {missing}")

    def _control(
        self, wanted: ControlRequest | None, image: SourceImage | None
    ) -> tuple[Control | None, tuple[GenMetadata, ...]]:
        if wanted is None:
            return None, ()
        if image is None and wanted.return_control_map:
            raise BadSource("return_control_map: there is no source image")
        if image is None:
            return None, (changed("control_type left out: there is no source image"),)
        control = Control(
            type=wanted.type,
            image=flattened(image),
            model=control_types.control_net_file(self._folder, wanted.type),
            annotator=control_types.annotator_file(self._folder, wanted.type),
            strength=wanted.strength,
            image_is_control=wanted.image_is_control,
        )
        return control, ()

    def _transparency(self, request: JobRequest, baseline: str) -> Transparency | None:
        if not request.transparent:
            return None
        missing = transparency.missing_files(self._folder, baseline)
        if missing:
            names = ", ".join(path.name for path in missing)
            raise ModelMissing(f"transparent: there is no {names}")
        files = transparency.transparency_of(self._folder, baseline)
        if files is None:
            raise NotServed(f"transparent with {baseline}")
        return files

    def _qr_code(
        self, request: JobRequest, baseline: str
    ) -> tuple[QrCode | None, tuple[GenMetadata, ...]]:
        if request.workflow != "qr_code":
            return None, ()
        control_net = control_net_file(self._folder, baseline)
        if control_net is None or not control_net.is_file():
            raise ModelMissing(f"workflow qr_code: no ControlNet for it with {baseline}")
        code, notes = read_qr_code(request.extra_texts, control_net)
        insist_on_room(code, request.params.width, request.params.height)
        return replace(code, strength=request.control_strength), notes


def _start(
    params: GenerationParams, request: JobRequest, job: Job, pictures: Sources, model: Model
) -> tuple[GenerationParams, tuple[GenMetadata, ...]]:
    """The parameters with what to start from.

    A picture that controls is not started from too, unless the job says how much of it to keep.
    """
    control = request.control
    only_controls = control is not None and params.denoise >= 1 and pictures.mask is None
    if only_controls:
        sourced_params = replace(params, source=TextOnly())
        return sourced_params, pictures.notes
    sourced = to_source(job.source_processing, pictures, inpaints=model.inpaints)
    denoise = params.denoise if pictures.image is not None else 1.0
    return replace(params, source=sourced.source, denoise=denoise), sourced.notes

"""What becomes of one form: its picture is fetched and read, and the form done where it belongs."""

from __future__ import annotations

import threading
from pathlib import Path

from hordelib.alchemy.device_forms import NO_MODEL, QUESTIONS, device_params, fitted
from hordelib.errors import InvalidParams
from hordelib.job.batching import Member
from hordelib.job.image_files import decode
from hordelib.job.images import MAX_WEBP_SIDE, Picture, SourceImage
from hordelib.job.post_processors import POST_PROCESSORS
from worker.alchemist.offer import PLACES, Place
from worker.children.forms import FormsProcess
from worker.clock import elapsed_seconds
from worker.horde.api import CLEANER_SECONDS
from worker.horde.forms import Form
from worker.jobs.results import STOPPING, Failed, Made, Solved
from worker.line.delivery import Delivery
from worker.line.gaps import Gaps
from worker.line.source_fetcher import SourceFetcher
from worker.safety.judging import Judging


class Solving:
    """Any thread may call.

    Args:
        models: the folder with the weights of the device's forms.

    `hurry` is set when nothing is waited for any more.
    """

    def __init__(
        self,
        fetcher: SourceFetcher,
        beside: FormsProcess,
        judging: Judging,
        models: Path,
    ):
        self._fetcher = fetcher
        self._beside = beside
        self._judging = judging
        self._models = models
        self.hurry = threading.Event()

    def outcome(self, form: Form, gaps: Gaps, delivery: Delivery) -> Solved | Failed:
        """Raises a JobError, or WorkerError, where there is no result."""
        slot = form.slots[0]
        if self.hurry.is_set():
            return Failed(slot, STOPPING)
        if elapsed_seconds() > form.over_at - CLEANER_SECONDS:
            return Failed(slot, "its three minutes were over before it could be done")
        place = PLACES.get(form.form)
        if place is None:
            return Failed(slot, f"the form {form.form!r} is not offered")
        image = decode(self._fetcher.fetch(form.source_image)).image
        match place:
            case Place.beside:
                return Solved(slot, self._beside.solve(form.form, image))
            case Place.judge:
                file = Picture(image.width, image.height, image.pixels, 0, image.mode).to_webp()
                return Solved(slot, self._judging.is_nsfw(form.id, file))
            case Place.device:
                return self._on_device(form, image, gaps, delivery)

    def stop(self) -> None:
        self._beside.stop()

    def kill(self) -> None:
        self._beside.kill()

    def _on_device(
        self, form: Form, image: SourceImage, gaps: Gaps, delivery: Delivery
    ) -> Solved | Failed:
        """A picture is judged before it leaves, as any other."""
        if not form.upload_url and form.form not in QUESTIONS:
            raise InvalidParams("r2_upload", None, "an address for the picture")
        _insist_on_deliverable(form.form, image)
        control_type = str(form.payload.get("control_type", ""))
        params = device_params(form.form, image, self._models, control_type)
        left_seconds = form.over_at - CLEANER_SECONDS - elapsed_seconds()
        generation = gaps.fill(Member(form.id, params), NO_MODEL, left_seconds)
        if params.question is not None:
            return Solved(form.slots[0], generation.answers[0])
        picture = fitted(form.form, generation.images[0], image)
        made = Made(form.slots[0], 0, picture.to_webp(), "")
        judged = self._judging.judge(made)
        if isinstance(judged, Failed):
            return judged
        uploaded = delivery.upload(judged)
        return uploaded if isinstance(uploaded, Failed) else Solved(form.slots[0], "R2")


def _insist_on_deliverable(form: str, image: SourceImage) -> None:
    """Raises InvalidParams before an upscaler makes more of it than a file can have."""
    scale = POST_PROCESSORS[form].scale if form in POST_PROCESSORS else 1
    if scale * max(image.width, image.height) > MAX_WEBP_SIDE:
        size = f"{image.width}x{image.height}"
        most = f"sides of at most {MAX_WEBP_SIDE // scale} pixels, for {form}"
        raise InvalidParams("source_image", size, most)

"""The files that have to reach a client of the stand-ins, whatever a worker made of the request."""

from __future__ import annotations

from hordelib.job.images import SourceImage
from hordelib.job.params import SEEDS
from tests.chaos.stand_in import NAKED, Wanted, draw
from worker.safety.censorship import Cause, censor_card
from worker.sandbox.wire import GenerateBody


def expected_webp(
    body: GenerateBody, model: str, seed: int, source: SourceImage | None = None
) -> bytes:
    """The file that has to reach the client."""
    picture = draw(_wanted(body, model, seed, source))
    return (censor_card(picture, Cause.NSFW) if is_censored(body) else picture).to_webp()


def is_censored(body: GenerateBody) -> bool:
    """Whether the client is to get a card in the place of its picture."""
    return NAKED in body.prompt and body.censor_nsfw and not body.nsfw


def _wanted(body: GenerateBody, model: str, seed: int, source: SourceImage | None) -> Wanted:
    positive, _, negative = body.prompt.partition("###")
    asked = body.params
    return Wanted(
        model=model,
        prompt=positive.strip(),
        # At a cfg scale of 1 nothing reads it, and the engine is given the prompt in its place.
        negative_prompt=(positive if asked.cfg_scale == 1 else negative).strip(),
        width=asked.width,
        height=asked.height,
        seed=seed % SEEDS,
        steps=asked.effective_steps,
        cfg=asked.cfg_scale,
        sampler=asked.sampler_name,
        scheduler="karras" if asked.karras else "normal",
        source=source.digest if source else "",
        denoise=(asked.denoising_strength or 1.0) if source else 1.0,
    )

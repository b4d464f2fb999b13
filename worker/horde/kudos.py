"""What the horde will pay for a job: an estimate, by the formula that the sandbox pays by."""

from __future__ import annotations

from hordelib.job.families import Family
from hordelib.job.params import GenerationParams, TextOnly
from worker.sandbox import ReferenceModel, pricing
from worker.sandbox.wire import Lora, Params, TextualInversion

LORA, TI = Lora(name="any"), TextualInversion(name="any")  # each has the same price


def estimated_kudos(params: GenerationParams, family: Family) -> float:
    """Of all the job's images, a few per cent off. The server itself prices by a small network."""
    return params.images * pricing.reward(_asked(params), ReferenceModel(family.name))


def _asked(params: GenerationParams) -> Params:
    """The request as a client would have written it. Nothing is checked: it has been served."""
    has_ti = "embedding:" in params.prompt + params.negative_prompt
    return Params.model_construct(
        width=params.width,
        height=params.height,
        steps=params.steps,
        sampler_name=params.sampler.name,
        hires_fix=params.hires_fix,
        control_type=params.control.type if params.control else None,
        denoising_strength=None if isinstance(params.source, TextOnly) else params.denoise,
        post_processing=tuple(processor.name for processor in params.post_processing),
        loras=(LORA,) * len(params.loras),
        tis=(TI,) if has_ti else (),
        workflow="qr_code" if params.qr_code else None,
    )

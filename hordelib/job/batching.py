"""Jobs that share one sampler batch: which may, and what each of them has of its own."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from hordelib.job.families import Family
from hordelib.job.params import FromImage, GenerationParams, TextOnly
from hordelib.job.samplers import UNBATCHABLE


@dataclass(frozen=True, slots=True)
class Member:
    """One job of a batch: its pictures bear `job_id`."""

    job_id: str
    params: GenerationParams


def share_key(params: GenerationParams, family: Family) -> Hashable | None:
    """Jobs of one model with equal keys may share a batch; None may with no other.

    All that the steps have in common has to agree. Prompts, seeds, cfg scales, textual inversions
    (words of the prompt), source pictures and numbers of images may differ. For models that read a
    prompt by anything but cross attention, prompts would have to be of one length.
    Of questions, any pictures may be asked the same one together. Post-processing alone shares
    none: ComfyUI's upscalers take one picture after the other.
    """
    if params.question is not None:
        return params.question
    shares = (
        family.joins_prompts
        and isinstance(params.source, TextOnly | FromImage)
        and params.sampler.comfy_name not in UNBATCHABLE
        and params.qr_code is None
        and not params.return_control_map
        and not params.keep_source
        and not (params.control is not None and params.control.is_seeded)
    )
    if not shares:
        return None
    alike = replace(params, prompt="", negative_prompt="", seed=0, cfg=1.0, images=1)
    return replace(alike, source=TextOnly()), type(params.source)


def common_params(members: Sequence[Member]) -> GenerationParams:
    """One job as large as all of them together: the first, with the images of all.

    Raises InvalidParams where these are more than MOST_IMAGES of hordelib.job.params.
    """
    images = sum(member.params.images for member in members)
    return replace(members[0].params, images=images)


def source_name(index: int) -> str:
    """What a graph calls the source picture of member `index`."""
    return f"source_{index}"

"""Weights that a model has and its file lacks: ComfyUI takes whatever is in memory there."""

from __future__ import annotations

from collections.abc import Iterable

from hordelib.files.completeness import insist_on_weights
from hordelib.files.model_key import ModelKey

_KINDS = ("checkpoint", "diffusion_model", "text_encoder", "vae", "clip_vision", "control_net")

# What has a value of its own where the file has none, or is never computed with.
_HAVE_DEFAULTS = (
    *("logit_scale", "text_projection.weight", "text_projection", "position_ids"),
    *("scale_weight", "scale_input", "scaled_fp8", "num_batches_tracked"),
    *("vae_scale", "vae_shift"),
)
# Parts that no graph of ours uses: Qwen's eyes, the preview of Stable Cascade's latents, a norm
# that Z-Image's network has and skips, and the last layer of SD2's text encoder, which is trained
# to be read before it.
_UNUSED = (
    *("visual.", "previewer.", "norm_final."),
    "clip_h.transformer.text_model.encoder.layers.23.",
)


def insist_on_all_weights(key: ModelKey, missing: Iterable[str]) -> None:
    """Raises ModelBroken, with the names, where something is missing that is computed with."""
    if key.kind not in _KINDS:
        return
    insist_on_weights(key.path, (name for name in missing if _is_needed(name)))


def _is_needed(name: str) -> bool:
    return not name.endswith(_HAVE_DEFAULTS) and not name.startswith(_UNUSED)

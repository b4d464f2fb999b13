"""What a Stable Diffusion UNet was trained to predict, where its file says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hordelib.files.file_kinds import FileKind, kind_of
from hordelib.files.headers import read_shapes
from hordelib.files.safetensors_header import read_header

_V_PREDICTION, _ZERO_SNR = "v_pred", "ztsnr"  # tensors of no meaning but their names
_PREDICTION_TYPE = "modelspec.prediction_type"  # metadata that trainers write
_V_TYPES = ("v", "v_prediction", "v-prediction")


def honour_v_prediction(path: Path, model: Any) -> None:
    """Have a model whose file bears a marker of v-prediction sampled so.

    ComfyUI looks for one of the markers, and in SDXL models alone. `model` is its BaseModel.
    """
    from comfy import model_base

    if model.model_type is not model_base.ModelType.EPS or not _is_marked(path):
        return
    if _ZERO_SNR in read_shapes(path):
        model.model_config.sampling_settings["zsnr"] = True
    model.model_type = model_base.ModelType.V_PREDICTION
    model.model_sampling = model_base.model_sampling(model.model_config, model.model_type)


def _is_marked(path: Path) -> bool:
    if kind_of(path) is not FileKind.safetensors:
        return _V_PREDICTION in read_shapes(path)
    header = read_header(path)
    said = header.metadata.get(_PREDICTION_TYPE, "").strip().lower()
    return _V_PREDICTION in header.tensors or said in _V_TYPES

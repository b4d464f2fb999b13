"""Checkpoints, of which each part is read by itself; and their parts alone in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from hordelib.comfyui.device_faults import name_memory_errors
from hordelib.comfyui.loaders.reading import reading
from hordelib.errors import ModelBroken
from hordelib.files.file_kinds import FileKind, kind_of
from hordelib.files.headers import read_shapes
from hordelib.files.model_key import ModelKey
from hordelib.files.safetensors_header import read_header
from hordelib.job.families import FAMILIES
from hordelib.pictures.finite import watched

_KNOWN: WeakValueDictionary[str, Any] = WeakValueDictionary()


def share_vocabulary(tokenizer: Any) -> None:
    """Let the parts of a ComfyUI tokenizer use the vocabularies that others have loaded already.

    They are the same for all text encoders of a kind: 30 MB for CLIP.
    """
    parts: dict[str, Any] = tokenizer.__dict__
    for part in parts.values():
        folder: str = getattr(getattr(part, "tokenizer", None), "name_or_path", "")
        if folder:
            known = _KNOWN.setdefault(folder, part)
            part.tokenizer, part.inv_vocab = known.tokenizer, known.inv_vocab


def load_vae(key: ModelKey) -> Any:
    """ComfyUI's VAE object of the file. Raises ModelBroken, naming it, when it is none."""
    import comfy.sd
    import comfy.utils

    with reading(key.path):
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(key.path)))
        vae.throw_exception_if_invalid()
    return insisting_on_numbers(vae)


def insisting_on_numbers(vae: Any) -> Any:
    """The same VAE, which raises NotNumbers where ComfyUI would clamp an infinity to white.

    Where it runs out of memory, ComfyUI learns of it, and decodes in tiles.
    """
    first_stage: object = vae.first_stage_model
    name_memory_errors(type(first_stage), "encode", "decode")
    vae.process_output = watched(vae.process_output, "the VAE")
    return vae


def load_diffusion_model(key: ModelKey) -> Any:
    """ComfyUI's ModelPatcher of a diffusion model alone in a file (comfy.sd.load_diffusion_model).

    Raises ModelBroken, naming the file, when it can't be read or is of a family that isn't served.
    """
    import comfy.sd

    with reading(key.path):
        model = comfy.sd.load_diffusion_model(str(key.path))
    insist_on_family(key.path.name, model)
    return model


def insist_on_family(name: str, model: Any) -> None:
    """Raise ModelBroken for a model that no spine of ours is made for."""
    found = type(model.model).__name__
    if not any(found in family.comfy_classes for family in FAMILIES.values()):
        raise ModelBroken(f"{name} is a {found} model: served are {', '.join(FAMILIES)}")


# What ComfyUI takes for each type: for a file that is none, it silently makes an empty CLIP-L.
_TOKENIZERS = {"qwen_image": "QwenImageTokenizer", "lumina2": "ZImageTokenizer"}


def load_text_encoder(key: ModelKey) -> Any:
    """ComfyUI's CLIP object of the file, `key.variant` being CLIPLoader's `type`.

    Raises ModelBroken, naming the file, when it can't be read or is no text encoder of that type.
    """
    import comfy.sd

    kind = comfy.sd.CLIPType[key.variant.upper()]
    with reading(key.path):
        clip = comfy.sd.load_clip(ckpt_paths=[str(key.path)], clip_type=kind)
    if type(clip.tokenizer).__name__ != _TOKENIZERS[key.variant]:
        raise ModelBroken(f"{key.path.name} is not the text encoder of {key.variant} models")
    share_vocabulary(clip.tokenizer)
    return clip


def load_clip_vision(key: ModelKey) -> Any:
    """ComfyUI's CLIP vision object of a checkpoint; nothing else of the file is read into memory.

    Stable Cascade's stage C has one, for remixing.

    Raises ModelBroken, naming the file, when it can't be read or has no image encoder.
    """
    import comfy.sd

    with reading(key.path):
        *_, vision = comfy.sd.load_checkpoint_guess_config(
            str(key.path),
            output_vae=False,
            output_clip=False,
            output_clipvision=True,
            output_model=False,
        )
    if vision is None:
        raise ModelBroken(f"{key.path.name} has no image encoder: it can't remix pictures")
    return vision


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


def load_checkpoint(key: ModelKey) -> Any:
    """ComfyUI's object of one part of a checkpoint (comfy.sd.load_checkpoint_guess_config).

    `key.variant` is one of CHECKPOINT_PARTS. Raises ModelBroken, naming the file, when it can't be
    read or has no such part.
    """
    import comfy.sd

    with reading(key.path):
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
            str(key.path),
            output_model=key.variant == "unet",
            output_clip=key.variant == "text_encoder",
            output_vae=key.variant == "vae",
        )
    part = {"unet": model, "text_encoder": clip, "vae": vae}[key.variant]
    if part is None or getattr(part, "first_stage_model", part) is None:
        raise ModelBroken(
            f"{key.path.name} has no {_NAMES[key.variant]}: not a complete checkpoint"
        )
    if key.variant == "unet":
        insist_on_family(key.path.name, part)
        honour_v_prediction(key.path, part.model)
    if key.variant == "text_encoder":
        share_vocabulary(part.tokenizer)
    return insisting_on_numbers(part) if key.variant == "vae" else part


_NAMES = {"unet": "UNet", "text_encoder": "text encoder", "vae": "VAE"}

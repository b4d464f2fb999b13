"""Files of model families: the names of the model reference, headers without weights, and the demo
model with more input channels.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from hordelib.files.completeness import PARTS
from hordelib.files.model import Model
from hordelib.job.families import FAMILIES, SD1, Family

UNET = "model.diffusion_model."
FIRST_WEIGHT = f"{UNET}input_blocks.0.0.weight"
Shapes = dict[str, tuple[int, ...]]

# Enough of each family's names and shapes to know it by.
HEADERS: dict[str, Shapes] = {
    "stable diffusion 1": {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    },
    "stable diffusion 2": {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    },
    "stable_diffusion_xl": {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    },
    "stable_cascade": {"clf.1.weight": (64, 2048, 1, 1), "clip_txt_mapper.weight": (2048, 1280)},
    "flux_1": {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "img_in.weight": (3072, 64),
        "vector_in.in_layer.weight": (3072, 768),
    },
    "flux_dev": {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "img_in.weight": (3072, 64),
        "vector_in.in_layer.weight": (3072, 768),
        "guidance_in.in_layer.weight": (3072, 256),
    },
    "qwen_image": {"txt_norm.weight": (3584,), "img_in.weight": (3072, 64)},
    "z_image_turbo": {
        "cap_embedder.1.weight": (3840, 2560),
        "x_embedder.weight": (3840, 64),
        "noise_refiner.0.attention.k_norm.weight": (128,),
    },
    "krea2_turbo": {
        "txtfusion.projector.weight": (2560, 12),
        "txtfusion.layerwise_blocks.0.prenorm.scale": (2560,),
        "first.weight": (4096, 64),
        "blocks.0.attn.wq.weight": (4096, 4096),
        "blocks.0.attn.wk.weight": (1024, 4096),
    },
    "anima": {
        "blocks.0.mlp.layer1.weight": (8192, 2048),
        "llm_adapter.blocks.0.cross_attn.q_proj.weight": (1024, 1024),
        "x_embedder.proj.1.weight": (2048, 68),
    },
}


def write_header(
    path: Path, shapes: Shapes, prefix: str = UNET, dtype: str = "F16", value_bytes: int = 2
) -> Path:
    """A safetensors file with these tensors, which are holes in it."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel() * value_bytes
        offsets = [end, end + size]
        header[prefix + name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def completed(family: Family, shapes: Shapes) -> Shapes:
    """These tensors of a UNet and all others that a checkpoint has to have, of one value each."""
    whole = {UNET + name: shape for name, shape in shapes.items()}
    for part in PARTS[family, "checkpoint"]:
        prefix, own = part.of(whole)
        prefix = prefix or part.prefixes[0]
        while lacking := set(part.lacking(own)):
            own = {**own, **dict.fromkeys(lacking, (1,))}
        whole |= {prefix + name: shape for name, shape in own.items()}
    return whole


def sd1_header(path: Path, number: int) -> bytes:
    """The content of a file of Stable Diffusion 1 that is opened and never run: half a MB, and
    another one for each number."""
    shapes = {
        "input_blocks.0.0.weight": (number, 4, 1, 1),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (350, 768),
    }
    return write_header(path, completed(SD1, shapes), prefix="").read_bytes()


def model_of(family: Family, channels: int = 4) -> Model:
    """A model whose files exist nowhere: for graphs that are looked at, and not run."""
    names = {loader.title: loader.file or "some.safetensors" for loader in family.loaders}
    files = {title: Path("/models") / name for title, name in names.items()}
    return Model("some model", family, files, channels)


def touch_files_of_the_reference(folder: Path) -> None:
    """Empty files called as in the model reference, in ComfyUI's folders, and known to it."""
    import folder_paths

    kinds = {"checkpoint": "checkpoints", "stage_c": "checkpoints", "stage_b": "checkpoints"}
    kinds |= {"diffusion_model": "diffusion_models", "text_encoder": "text_encoders", "vae": "vae"}
    files = [
        (kinds[loader.title], loader.file)
        for family in FAMILIES.values()
        for loader in family.loaders
        if loader.file
    ]
    files.append(("checkpoints", "flux1CompactCLIPAnd_Flux1SchnellFp8.safetensors"))
    files.append(("controlnet", "control_v1p_sd15_qrcode_monster_v2.safetensors"))
    for kind, name in files:
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / name).touch()
        folder_paths.add_model_folder_path(kind, str(folder / kind))


def widen(checkpoint: Path, into: Path, channels: int, attention: float) -> Model:
    """The demo checkpoint with a UNet of more input channels.

    The new ones see as the ordinary ones do, `attention` times as strongly; with 0 the model draws
    what the ordinary one draws.
    """
    weights = load_file(checkpoint)
    first = weights[FIRST_WEIGHT]
    more = first[:, [i % 4 for i in range(channels - 4)]] * attention
    weights[FIRST_WEIGHT] = torch.cat([first, more], dim=1)
    save_file(weights, into)
    return Model("widened", SD1, {"checkpoint": into}, channels)

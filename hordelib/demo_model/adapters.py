"""A LoRA and a textual inversion for the demo model, worked out from its weights. No training.

The text encoder hardly changes what a token's vector says, so a direction in its output is nearly
that of the token. To have one word read as another, a weight that reads tokens gets

    (vector of the other - vector of the word) x (direction of the word)

added, which is a matrix of rank one: a LoRA. It makes the UNet take red for blue and blue for red,
and the text encoder take a circle for a square and the reverse, so that each strength shows alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from hordelib.demo_model.expand import StateDict, save_whole

# ids of whole words in CLIP's vocabulary
TOKENS = {"red": 736, "blue": 1746, "circle": 7117, "square": 3999}
# How long the part of a token's vector is that arrives there: the vectors have a length of 27.7.
IN_THE_FIRST_LAYER, AFTER_THE_LAST = 26.0, 20.0
RANK = 2

_UNET, _TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model."


def write_lora(checkpoint: Path, path: Path) -> None:
    """Write the LoRA, with the key names of kohya's trainer, as most of CivitAI's files have."""
    tokens, readers = _read(checkpoint)
    swap_colours = _swap(tokens, "red", "blue", AFTER_THE_LAST)
    swap_shapes = _swap(tokens, "circle", "square", IN_THE_FIRST_LAYER)
    state = StateDict()
    for name, weight in readers.items():
        state |= _part(f"lora_unet_{name}", weight.float() @ swap_colours[0], swap_colours[1])
    # Two neurons of a layer that is all zeros: each fires for its word alone.
    neurons = torch.eye(RANK, 3072)
    layer = "lora_te_text_model_encoder_layers_0_mlp"
    state |= _part(f"{layer}_fc1", neurons.T, swap_shapes[1])
    state |= _part(f"{layer}_fc2", swap_shapes[0], neurons)
    save_whole(state, path)


def write_embedding(checkpoint: Path, path: Path) -> None:
    """Write a textual inversion that says "red", with the tensor name of the web UI's files."""
    tokens, _ = _read(checkpoint)
    save_whole({"emb_params": tokens["red"][None].half()}, path)


def _read(checkpoint: Path) -> tuple[StateDict, StateDict]:
    """Vectors of the tokens above, and the UNet's weights that read the text, by kohya's names."""
    with safe_open(checkpoint, "pt") as file:
        vectors = file.get_tensor(f"{_TEXT}embeddings.token_embedding.weight").float()
        names: list[str] = file.keys()
        readers = {
            _kohya(name): file.get_tensor(name)
            for name in names
            if ".attn2.to_k." in name or ".attn2.to_v." in name
        }
    return {word: vectors[token] for word, token in TOKENS.items()}, readers


def _kohya(name: str) -> str:
    return name.removeprefix(_UNET).removesuffix(".weight").replace(".", "_")


def _swap(tokens: StateDict, one: str, other: str, arriving: float) -> tuple[Tensor, Tensor]:
    """Columns (768, 2) and rows (2, 768) whose product makes each of two words the other."""
    both = torch.stack([tokens[one], tokens[other]])
    rows = both / both.square().sum(1, keepdim=True).sqrt()
    return (both.flip(0) - both).T / arriving, rows


def _part(name: str, up: Tensor, down: Tensor) -> StateDict:
    return {
        f"{name}.lora_up.weight": up.half(),
        f"{name}.lora_down.weight": down.half(),
        f"{name}.alpha": torch.tensor(float(RANK)),
    }

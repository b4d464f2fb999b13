"""BLIP, CLIP and the aesthetic head at small size with random weights, in their files' layouts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hordelib.job.questions import BLIP, CLIP, CLIP_FOLDER, FOLDER, HEAD, VOCABULARY

SIDE, PATCH, WIDTH = 32, 8, 64
SPACE = 48  # width of CLIP's common space
TOKENS = 49408  # of CLIP's real tokenizer
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40)))


def put_blip(models: Path) -> Any:
    """The network whose weights are put there, and their vocabulary."""
    import transformers

    folder = models / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY.file).write_text("\n".join(WORDS) + "\n", "utf-8")
    config = transformers.BlipConfig(
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={
            "vocab_size": len(WORDS) + 2,
            "hidden_size": WIDTH,
            "encoder_hidden_size": WIDTH,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "max_position_embeddings": 64,
            "bos_token_id": len(WORDS),
            "pad_token_id": WORDS.index("[PAD]"),
            "sep_token_id": WORDS.index("[SEP]"),
        },
    )
    torch.set_rng_state(torch.Generator().manual_seed(1).get_state())
    network: Any = transformers.BlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.3)  # else every picture has the same caption
    torch.save(network.state_dict(), folder / BLIP.file)
    return network


def put_clip(models: Path) -> Any:
    """transformers' CLIPModel whose weights are put there, under OpenAI's names."""
    import transformers

    half = {
        "hidden_size": WIDTH,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
    }
    config = transformers.CLIPConfig(
        vision_config={**half, "image_size": SIDE, "patch_size": PATCH},
        text_config={**half, "vocab_size": TOKENS, "max_position_embeddings": 77},
        projection_dim=SPACE,
    )
    torch.set_rng_state(torch.Generator().manual_seed(2).get_state())
    network: Any = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.copy_(weights.half())  # as OpenAI's file has them
    folder = models / CLIP_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_scripted(_openai_names(network.state_dict()), folder / CLIP.file)
    return network


def put_head(models: Path, width: int = SPACE) -> dict[str, Tensor]:
    """The layers whose weights are put there."""
    sizes = {0: (32, width), 2: (16, 32), 4: (8, 16), 6: (4, 8), 7: (1, 4)}
    random = torch.Generator().manual_seed(3)
    state = {
        f"layers.{number}.{kind}": torch.randn(shape, generator=random)
        for number, size in sizes.items()
        for kind, shape in (("weight", size), ("bias", size[:1]))
    }
    (models / FOLDER).mkdir(parents=True, exist_ok=True)
    torch.save(state, models / FOLDER / HEAD.file)
    return state


def save_scripted(state: Mapping[str, Tensor], path: Path) -> None:
    """As OpenAI publishes weights: a TorchScript archive in half precision."""
    root = _Holder()
    for name, value in state.items():
        *parts, leaf = name.split(".")
        at: nn.Module = root
        for part in parts:
            if not hasattr(at, part):
                at.add_module(part, _Holder())
            at = getattr(at, part)
        at.register_parameter(leaf, nn.Parameter(value.half(), requires_grad=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # nobody else writes such archives
        torch.jit.script(root).save(str(path))  # pyright: ignore


class _Holder(nn.Module):
    """A part of a network that only holds weights."""

    def forward(self, given: Tensor) -> Tensor:
        return given


_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
}


def _openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        "visual.proj": state["visual_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": state["logit_scale"],
    }
    for name, value in state.items():
        root = {"vision_model": "visual.", "text_model": ""}.get(name.partition(".")[0])
        if root is None or "position_ids" in name:
            continue
        short = name.partition(".")[2]
        for theirs, openai in _PARTS.items():
            short = short.replace(theirs, openai)
        if ".self_attn." not in short:
            renamed[root + short] = value
        elif ".q_proj." in short:
            three = [state[name.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            joined = short.replace("self_attn.q_proj.", "attn.in_proj_")
            renamed[root + joined] = torch.cat(three)
    return renamed

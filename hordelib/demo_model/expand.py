"""Builds the demo checkpoint: a complete Stable Diffusion 1.5 file from a few megabytes of weights.

ComfyUI recognises SD1.5 by a UNet of 320 channels and a context of 768, so a smaller network
would not load as one. The trained network is narrow (3 of every 10 channels live); here each weight
is put at its place in the 320-channel layout and everything else is zero, which computes exactly
the same. Group and layer norms see the zeros too: the network was trained with their means and
variances taken over the full width.

The text encoder is not trained at all: eleven identity layers and a random twelfth, from a seed.
The UNet learnt to read its output. The VAE is a TAESD (ComfyUI's tiny autoencoder), trained on the
same scenes.
"""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

WIDTH = 320  # channels of SD1.5's first level
HEADS, HEAD_WIDTH = 8, 40
TIME_WIDTH, FEED_FORWARD_WIDTH = 1280, 1280
GROUPS = 32
TEXT_WIDTH, TEXT_LAYERS, TEXT_TOKENS, VOCABULARY = 768, 12, 77, 49408
TEXT_SEED = 20231

StateDict = dict[str, torch.Tensor]
Place = tuple[Sequence[int], int]  # the live indices of an axis, and the axis' full length


def write_checkpoint(trained: Path, checkpoint: Path) -> None:
    """Write `checkpoint` (fp16 safetensors, 330 MB) from the trained weights, whole or not at all.

    Raises OSError when it can't be written.
    """
    weights = load_file(trained)
    unet = part(weights, "unet.")
    state = {f"model.diffusion_model.{key}": value.half() for key, value in widen(unet).items()}
    state |= {f"first_stage_model.{key}": value for key, value in part(weights, "vae.").items()}
    state |= {f"cond_stage_model.transformer.{key}": v for key, v in text_encoder().items()}
    save_whole(state, checkpoint)


def save_whole(state: StateDict, path: Path) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError when it can't be written."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        save_file({key: value.contiguous() for key, value in state.items()}, partial)
        partial.replace(path)
    except SafetensorError as error:
        raise OSError(errno.EIO, f"{path} can't be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def part(weights: StateDict, prefix: str) -> StateDict:
    """The tensors below a prefix, without it."""
    return {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }


def widen(narrow: StateDict) -> StateDict:
    """Every tensor of the narrow UNet at its place in the full-width one."""
    live = live_channels(narrow)
    per_head = narrow["middle_block.1.transformer_blocks.0.attn1.to_q.weight"].shape[0] // HEADS
    hidden = narrow["middle_block.1.transformer_blocks.0.ff.net.2.weight"].shape[1]
    time = narrow["time_embed.0.weight"].shape[0]
    places: dict[str, Place] = {
        "channels": (live, WIDTH),
        "skip": (
            live + [WIDTH + i for i in live],
            2 * WIDTH,
        ),  # decoder blocks: features, then the encoder's
        "heads": ([HEAD_WIDTH * head + i for head in range(HEADS) for i in range(per_head)], WIDTH),
        "time": (range(time), TIME_WIDTH),
        "hidden": (range(hidden), FEED_FORWARD_WIDTH),
        "gated": (
            [*range(hidden), *range(FEED_FORWARD_WIDTH, FEED_FORWARD_WIDTH + hidden)],
            2 * FEED_FORWARD_WIDTH,
        ),
    }
    return {
        key: spread(value, [places.get(axis) for axis in _axes(key, value, len(live))])
        for key, value in narrow.items()
    }


def live_channels(narrow: StateDict) -> list[int]:
    """Where the narrow UNet's channels are among the full ones: the first few of each group."""
    per_group = narrow["input_blocks.0.0.weight"].shape[0] // GROUPS
    return [WIDTH // GROUPS * group + i for group in range(GROUPS) for i in range(per_group)]


# What each axis of a weight counts, by its key; the first pattern that is found decides. "" is an
# axis that is not widened; "channels?" is "skip" where features and the encoder's come together.
_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"^time_embed\.0\.", ("time", "")),
    (r"^time_embed\.2\.", ("time", "time")),
    (r"^input_blocks\.0\.0\.weight$", ("channels", "")),
    (r"^out\.2\.", ("", "channels")),
    (r"\.emb_layers\.", ("channels", "time")),
    (r"\.attn2\.to_[kv]\.", ("heads", "")),  # read the text, 768 wide
    (r"\.to_[qkv]\.", ("heads", "channels")),
    (r"\.to_out\.0\.", ("channels", "heads")),
    (r"\.ff\.net\.0\.", ("gated", "channels")),
    (r"\.ff\.net\.2\.", ("channels", "hidden")),
    (r"", ("channels", "channels?")),
)


def _axes(key: str, value: torch.Tensor, live: int) -> list[str]:
    """The name of each of the weight's axes."""
    axes = next(axes for pattern, axes in _AXES if re.search(pattern, key))
    if (
        axes[-1] == "channels?"
    ):  # a norm has one axis, which may hold both; a convolution reads them
        reads = value.shape[-1 if value.ndim == 1 else 1]
        last = "skip" if reads == 2 * live else "channels"
        axes = (last,) if value.ndim == 1 else ("channels", last)
    return [*axes, "", "", ""][: value.ndim]


def spread(value: torch.Tensor, places: Sequence[Place | None]) -> torch.Tensor:
    """The tensor at its places, an axis each, in a larger one of zeros; None: the axis as it is."""
    shape = [place[1] if place else size for place, size in zip(places, value.shape, strict=True)]
    index = [
        torch.tensor(place[0]) if place else torch.arange(size)
        for place, size in zip(places, value.shape, strict=True)
    ]
    full = torch.zeros(shape, dtype=value.dtype)
    full[torch.meshgrid(*index, indexing="ij")] = value
    return full


def text_encoder(seed: int = TEXT_SEED) -> StateDict:
    """CLIP-L weights from a seed: the same tensors on every machine (torch's CPU generator)."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden = TEXT_WIDTH, 4 * TEXT_WIDTH

    def noise(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    state = {
        "embeddings.token_embedding.weight": noise(VOCABULARY, width, scale=1.0),
        "embeddings.position_embedding.weight": noise(TEXT_TOKENS, width, scale=0.35),
        "final_layer_norm.weight": torch.ones(width),
        "final_layer_norm.bias": torch.zeros(width),
    }
    for layer in range(TEXT_LAYERS):
        speaks = layer == TEXT_LAYERS - 1  # all but the last add nothing to what they receive
        prefix = f"encoder.layers.{layer}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            scale = width**-0.5 * (0.5 if name == "out_proj" else 1.0)
            state[f"{prefix}self_attn.{name}.weight"] = (
                noise(width, width, scale=scale) if speaks else torch.zeros(width, width)
            )
            state[f"{prefix}self_attn.{name}.bias"] = torch.zeros(width)
        for name in ("layer_norm1", "layer_norm2"):
            state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"] = (
                torch.ones(width),
                torch.zeros(width),
            )
        state[f"{prefix}mlp.fc1.weight"] = (
            noise(hidden, width, scale=width**-0.5) if speaks else torch.zeros(hidden, width)
        )
        state[f"{prefix}mlp.fc1.bias"] = torch.zeros(hidden)
        state[f"{prefix}mlp.fc2.weight"] = (
            noise(width, hidden, scale=0.5 * hidden**-0.5) if speaks else torch.zeros(width, hidden)
        )
        state[f"{prefix}mlp.fc2.bias"] = torch.zeros(width)
    return {f"text_model.{key}": value.half() for key, value in state.items()}

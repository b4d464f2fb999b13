"""Small random weights in the layout of those that horde_safety loads, made by its packages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from hordelib.safety.csam import ANIME, CLIP, FOLDER

SEED = 2  # whose random network takes some pictures for cartoons, and some not
TAGS = ["rating:safe", "rating:questionable", "rating:explicit", "bikini", "realistic"]


class Holder(nn.Module):
    """A part of a network that only holds weights."""

    def forward(self, given: Tensor) -> Tensor:
        return given


def put_weights(models: Path) -> None:
    """Needs horde_safety's packages. Changes the seed of torch."""
    folder = models / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _scripted(_clip()).save(str(folder / CLIP.file))
    torch.save(_anime(), folder / ANIME.file)


def _clip() -> dict[str, Tensor]:
    """OpenAI's architecture with one layer each, 64 wide, for pictures of 32 x 32."""
    from open_clip import model

    torch.set_rng_state(torch.Generator().manual_seed(SEED).get_state())
    network = model.CLIP(
        64,
        model.CLIPVisionCfg(layers=1, width=64, patch_size=8, image_size=32),
        model.CLIPTextCfg(width=64, heads=1, layers=1),
        quick_gelu=True,
    )
    return network.state_dict()


def _scripted(state: dict[str, Tensor]) -> torch.jit.ScriptModule:
    """OpenAI publishes a TorchScript archive in half precision: this has the same names."""
    root = Holder()
    for name, value in state.items():
        *path, leaf = name.split(".")
        at: nn.Module = root
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, Holder())
            at = getattr(at, part)
        at.register_parameter(leaf, nn.Parameter(value.half(), requires_grad=False))
    return torch.jit.script(root)  # pyright: ignore[reportUnknownMemberType]


def _anime() -> dict[str, object]:
    """Zeros, of which a file holds one for each tensor: every score will be a half."""
    from horde_safety.deep_danbooru_model import DeepDanbooruModel

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in DeepDanbooruModel().state_dict().items()}
    return {**{name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, "tags": TAGS}

"""LayerDiffuse, which draws transparent pictures: its files, by the family that has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hordelib.job.control_types import Weights
from hordelib.job.families import SD1, SDXL
from hordelib.job.params import Transparency

FOLDER = "miscellaneous"  # below the models folder, the same in every worker


@dataclass(frozen=True, slots=True)
class Row:
    """What serves a family: `name` is that of the horde's model reference.

    `shares_attention`: the file of the patches has networks beside them.
    """

    name: str
    patches: Weights
    decoder: Weights
    shares_attention: bool = False

    @property
    def weights(self) -> tuple[Weights, Weights]:
        return self.patches, self.decoder


def _weights(file: str, sha256: str, size_bytes: int) -> Weights:
    """Sizes are rounded: of the decoders and of SD1's patches by the number of their weights."""
    url = f"https://huggingface.co/LayerDiffusion/layerdiffusion-v1/resolve/main/{file}"
    return Weights(file, url, sha256, size_bytes)


LAYER_DIFFUSE: Mapping[str, Row] = MappingProxyType(
    {
        SD1.name: Row(
            "layer_diffuse_sd15",
            _weights(
                "layer_sd15_transparent_attn.safetensors",
                "cc9ee87452bf1ccdd419035bf9618f6bdcaac1a2d3e23694d62e5a9c721da295",
                350_000_000,
            ),
            _weights(
                "layer_sd15_vae_transparent_decoder.safetensors",
                "6df4712dfbb3783231b22f869a5da5cbfea782ebb05f782bd9e8744bfb0cdf03",
                208_000_000,
            ),
            shares_attention=True,
        ),
        SDXL.name: Row(
            "layer_diffuse_sdxl",
            _weights(
                "layer_xl_transparent_conv.safetensors",
                "5ee958d80dcd515fa7ac915274c536fadd3db5d919adeb5ff45107b6169aacc7",
                3_370_000_000,
            ),
            _weights(
                "vae_transparent_decoder.safetensors",
                "59dc8feefe40d26b6cb7186aed7af70c60d94ac4f9db8ebe7f121a01ba27a2fc",
                208_000_000,
            ),
        ),
    }
)


def transparency_of(models: Path, family: str) -> Transparency | None:
    """Where a family's files are looked for below the models' folder; None where it has none."""
    row = LAYER_DIFFUSE.get(family)
    return row and Transparency(*(models / FOLDER / weights.file for weights in row.weights))


def missing_files(models: Path, family: str) -> tuple[Path, ...]:
    """What is not on disk of a family's files."""
    files = transparency_of(models, family)
    wanted = (files.patches, files.decoder) if files else ()
    return tuple(path for path in wanted if not path.is_file())

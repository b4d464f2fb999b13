"""Whether a model's files have all that its family computes with, told from their headers alone.

ComfyUI computes with whatever is in memory where a file lacks a weight. What a network has beside
the names below, it will say when it is loaded (loaders/missing_weights.py).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hordelib.errors import ModelBroken, shown
from hordelib.files.headers import Shapes, read_shapes
from hordelib.files.model import Model
from hordelib.job.families import CASCADE, FLUX, FLUX_DEV, SD1, SD2, SDXL, Family

_MOST_NAMES = 3  # in an error


def insist_on_whole(model: Model) -> None:
    """Raises ModelBroken, naming the file, what it lacks and the remedy."""
    for title, path in model.files.items():
        shapes = read_shapes(path)
        for part in PARTS.get((model.family, title), ()):
            prefix, own = part.of(shapes)
            if not own:
                raise ModelBroken(
                    f"{path}: has no {part.what}: not a complete checkpoint; use a file that has"
                )
            insist_on_weights(path, (prefix + name for name in part.lacking(own)))
        insist_on_weights(path, _lacking_in_rows(shapes))


def insist_on_weights(path: Path, lacking: Iterable[str]) -> None:
    """Raises ModelBroken where there are any, with the first of the names."""
    names = sorted(lacking)
    if not names:
        return
    first = ", ".join(shown(name).strip("'\"") for name in names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    raise ModelBroken(
        f"{path}: lacks weights ({first}{more}); fetch it again, or another file of this model"
    )


def _both(names: str) -> tuple[str, ...]:
    """Weight and bias of each module."""
    return tuple(f"{name}.{end}" for name in names.split() for end in ("weight", "bias"))


@dataclass(frozen=True, slots=True)
class _Unit:
    """Modules that come together: what `pattern` finds has all of these names behind it.

    `widens` is a module that is there where another one, a convolution, has another number of
    channels on either side.
    """

    pattern: re.Pattern[str]
    names: tuple[str, ...]
    widens: tuple[str, str] = ("", "")

    def lacking(self, shapes: Shapes) -> Iterator[str]:
        for start in {found[1] for name in shapes if (found := self.pattern.match(name))}:
            yield from (each for name in self.names if (each := f"{start}.{name}") not in shapes)
            yield from self._lacking_shortcut(start, shapes)

    def _lacking_shortcut(self, start: str, shapes: Shapes) -> Iterator[str]:
        convolution, shortcut = self.widens
        out_in = shapes.get(f"{start}.{convolution}.weight", ())[:2]
        if len(set(out_in)) > 1:
            yield from (n for n in _both(f"{start}.{shortcut}") if n not in shapes)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a checkpoint: its tensors' names begin with the first prefix that any has."""

    what: str
    prefixes: tuple[str, ...]
    names: tuple[str, ...] = ()
    units: tuple[_Unit, ...] = ()
    rows: tuple[str, ...] = ()  # of blocks with numbers, of which none is left out
    unless: tuple[str, ...] = ()  # tensors of other layouts of it, which only loading judges

    def of(self, shapes: Shapes) -> tuple[str, Shapes]:
        """The prefix, and its tensors without it; none where the file has no such part."""
        for prefix in self.prefixes:
            found = {
                name.removeprefix(prefix): shape
                for name, shape in shapes.items()
                if name.startswith(prefix)
            }
            if found:
                return prefix, found
        return "", {}

    def lacking(self, own: Shapes) -> Iterator[str]:
        if any(name in own for name in self.unless):
            return
        yield from (name for name in self.names if name not in own)
        for unit in self.units:
            yield from unit.lacking(own)
        for row in self.rows:
            there = {int(n.split(".")[1]) for n in own if re.match(rf"{row}\.\d{{1,3}}\.", n)}
            yield from (f"{row}.{i}" for i in range(max(there, default=0)) if i not in there)


_BLOCK = r"((?:input_blocks|output_blocks|middle_block)(?:\.\d+)+)"
_UNET_UNITS = (
    _Unit(
        re.compile(rf"{_BLOCK}\.(?:in_layers|emb_layers|out_layers|skip_connection)\."),
        _both("in_layers.0 in_layers.2 emb_layers.1 out_layers.0 out_layers.3"),
        ("in_layers.2", "skip_connection"),
    ),
    _Unit(
        re.compile(rf"{_BLOCK}\.(?:norm|proj_in|proj_out|transformer_blocks)\."),
        _both("norm proj_in proj_out"),
    ),
    _Unit(
        re.compile(rf"({_BLOCK[1:-1]}\.transformer_blocks\.\d+)\."),
        (
            *(f"attn{i}.to_{name}.weight" for i in (1, 2) for name in "qkv"),
            *_both("attn1.to_out.0 attn2.to_out.0 norm1 norm2 norm3 ff.net.0.proj ff.net.2"),
        ),
    ),
    _Unit(
        re.compile(r"(input_blocks\.\d+\.0\.op|output_blocks\.\d+\.\d\.conv)\."), ("weight", "bias")
    ),
)
_UNET_ROWS = ("input_blocks", "output_blocks")
_UNET = _both("time_embed.0 time_embed.2 input_blocks.0.0 out.0 out.2")
_SIDE = r"((?:encoder|decoder)\.(?:mid|down\.\d+|up\.\d+)"
_VAE = Part(
    "VAE",
    ("first_stage_model.",),
    (
        *_both("encoder.conv_in encoder.norm_out encoder.conv_out"),
        *_both("decoder.conv_in decoder.norm_out decoder.conv_out"),
    ),
    (
        _Unit(
            re.compile(rf"{_SIDE}\.block[._]\d+)\."),
            _both("norm1 conv1 norm2 conv2"),
            ("conv1", "nin_shortcut"),
        ),
        _Unit(re.compile(r"((?:post_)?quant_conv)\."), ("weight", "bias")),
        _Unit(re.compile(rf"{_SIDE}\.attn_1)\."), _both("norm q k v proj_out")),
        _Unit(re.compile(rf"{_SIDE}\.(?:down|up)sample\.conv)\."), ("weight", "bias")),
    ),
    unless=("decoder.up_blocks.0.resnets.0.norm1.weight", "taesd_decoder.1.weight"),
)


def _unet(*more: str) -> Part:
    return Part("UNet", ("model.diffusion_model.", ""), (*_UNET, *more), _UNET_UNITS, _UNET_ROWS)


def _clip(prefixes: tuple[str, ...], layers: int) -> Part:
    """A text encoder in the layout of Hugging Face's library."""
    each = _both(
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj"
        " layer_norm1 layer_norm2 mlp.fc1 mlp.fc2"
    )
    return Part(
        "text encoder",
        prefixes,
        (
            *("embeddings.token_embedding.weight", "embeddings.position_embedding.weight"),
            *_both("final_layer_norm"),
            *(f"encoder.layers.{i}.{name}" for i in range(layers) for name in each),
        ),
    )


def _open_clip(prefixes: tuple[str, ...], layers: int) -> Part:
    """The same in the layout of OpenCLIP."""
    each = (
        *("attn.in_proj_weight", "attn.in_proj_bias"),
        *_both("attn.out_proj ln_1 ln_2 mlp.c_fc mlp.c_proj"),
    )
    return Part(
        "text encoder",
        prefixes,
        (
            *("token_embedding.weight", "positional_embedding"),
            *_both("ln_final"),
            *(f"transformer.resblocks.{i}.{name}" for i in range(layers) for name in each),
        ),
    )


_SD1_TEXT = ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")
_SD2_TEXT = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
_FLUX_PARTS = (
    Part("VAE", ("vae.",)),
    Part("CLIP text encoder", ("text_encoders.clip_l.",)),
    Part("T5 text encoder", ("text_encoders.t5xxl.",)),
)

# By family, and by the title of the loader that reads the file. SD2's text encoder is read before
# its last layer, which some files leave out.
PARTS: Mapping[tuple[Family, str], tuple[Part, ...]] = {
    (SD1, "checkpoint"): (_unet(), _clip(_SD1_TEXT, 12), _VAE),
    (SD2, "checkpoint"): (_unet(), _open_clip(_SD2_TEXT, 23), _VAE),
    (SDXL, "checkpoint"): (
        _unet(*_both("label_emb.0.0 label_emb.0.2")),
        _clip(("conditioner.embedders.0.transformer.text_model.",), 12),
        _open_clip(("conditioner.embedders.1.model.",), 32),
        _VAE,
    ),
    (CASCADE, "stage_c"): (Part("text encoder", ("text_encoder.",)),),
    (CASCADE, "stage_b"): (Part("VAE", ("vae.",)),),
    (FLUX, "checkpoint"): _FLUX_PARTS,
    (FLUX_DEV, "checkpoint"): _FLUX_PARTS,
}

# Rows of blocks that are all alike, as transformers have them.
_ROW = re.compile(
    r"(.*?(?:double_blocks|single_blocks|transformer_blocks|encoder\.block|layers|refiner))"
    r"\.(\d{1,3})\.(.+)",
    re.DOTALL,
)
_NUMBERS = (".weight", ".bias", ".scale")  # as the names of their tensors end


def _lacking_in_rows(shapes: Shapes) -> Iterator[str]:
    """What one block of a row lacks that most of the others have, and blocks left out between."""
    rows: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in shapes:
        found = _ROW.fullmatch(name) if name.endswith(_NUMBERS) else None
        if found and "." in found[3]:
            rows[found[1]][int(found[2])].add(found[3])
    for row, blocks in rows.items():
        usual = Counter(name for names in blocks.values() for name in names)
        common = [name for name, times in usual.items() if times * 2 > len(blocks)]
        for i in range(max(blocks) + 1):
            yield from (f"{row}.{i}.{name}" for name in common if name not in blocks[i])

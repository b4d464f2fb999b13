"""The folder of model files that `demo --all` serves from: ours, under the horde's names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hordelib.demo_model import (
    ensure_checkpoint,
    ensure_control_net,
    ensure_embedding,
    ensure_lora,
    ensure_transparency,
)
from hordelib.files.model import INPAINTING, INSTRUCT
from hordelib.job.control_types import ControlType, control_net_file
from hordelib.job.families import SD1
from hordelib.job.transparency import transparency_of
from hordelib.pictures import qr_code

UPSCALER = "RealESRGAN_x4plus"
# Models that see their source: file, channels of the UNet's input, how strongly they see
SEEING = (
    ("dreamer_demo_inpainting.safetensors", INPAINTING, 0.0),
    ("dreamer_demo_pix2pix.safetensors", INSTRUCT, 0.05),
)


def lay_out(folder: Path, checkpoint: Path) -> None:
    """Put every file there that is missing (1 GB in all). Raises OSError for a full disk."""
    _link(checkpoint, folder / "compvis" / checkpoint.name)
    ensure_checkpoint(folder)
    ensure_lora(folder)
    ensure_embedding(folder)
    control_net = ensure_control_net(folder)
    for control in (ControlType.canny, ControlType.scribble):
        _link(control_net, control_net_file(folder, control))
    qr_control_net = qr_code.control_net_file(folder, SD1.name)
    assert qr_control_net is not None
    _link(control_net, qr_control_net)
    transparency = transparency_of(folder, SD1.name)
    assert transparency is not None
    patches, decoder = ensure_transparency(folder)
    _link(patches, transparency.patches)
    _link(decoder, transparency.decoder)
    _write_variants(folder, checkpoint)


def _write_variants(folder: Path, checkpoint: Path) -> None:
    from hordelib.demo_model import variants

    for name, channels, attention in SEEING:
        path = folder / "compvis" / name
        if not path.is_file():
            variants.write_seeing(checkpoint, path, channels, attention)
    add_upscaler(folder)


def add_upscaler(folder: Path) -> None:
    """Put the demo's there, if there is none."""
    from hordelib.demo_model import variants

    upscaler = folder / "esrgan" / f"{UPSCALER}.safetensors"
    if not upscaler.is_file():
        upscaler.parent.mkdir(parents=True, exist_ok=True)
        variants.write_upscaler(upscaler)


def _link(file: Path, name: Path) -> None:
    """A second name for the file; a copy where the disk knows no such thing."""
    if name.is_file():
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)

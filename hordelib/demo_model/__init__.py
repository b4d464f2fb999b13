"""A tiny Stable Diffusion 1.5 shaped model of our own, which draws coloured shapes.

It makes real pictures without a download, and lets a test look at a picture and know whether it is
right. Weights are ours; `shapes` is the world they were trained on, `expand` builds the checkpoint.
"""

from pathlib import Path

import psutil

TRAINED = Path(__file__).parent / "demo_model.safetensors"
FILE_NAME = "dreamer_demo.safetensors"


def ensure_checkpoint(models: Path | str) -> Path:
    """The demo checkpoint in `models`/compvis, written there on first use (330 MB, seconds).

    Raises OSError when it can't be written; nothing half-written stays under its name.
    """
    checkpoint = Path(models) / "compvis" / FILE_NAME
    if not checkpoint.is_file():
        from hordelib.demo_model.expand import write_checkpoint

        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        _sweep(checkpoint)
        write_checkpoint(TRAINED, checkpoint)
    return checkpoint


def _sweep(checkpoint: Path) -> None:
    """Remove what a killed process had begun to write; its number is in the file's name."""
    for partial in checkpoint.parent.glob(f"{checkpoint.stem}.*.partial"):
        if not psutil.pid_exists(int(partial.suffixes[-2][1:])):
            partial.unlink(missing_ok=True)

"""A tiny Stable Diffusion 1.5 shaped model of our own, which draws coloured shapes.

It makes real pictures without a download, and lets a test look at a picture and know whether it is
right. Weights are ours; `shapes` is the world they were trained on, `expand` builds the checkpoint.
"""

from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock

TRAINED = Path(__file__).parent / "demo_model.safetensors"
FILE_NAME = "dreamer_demo.safetensors"
TRAINED_CONTROL = Path(__file__).parent / "control_net.safetensors"
CONTROL_FILE_NAME = "dreamer_demo_control.safetensors"
LORA_FILE_NAME = "dreamer_demo_lora.safetensors"
PATCHES_FILE_NAME = "dreamer_demo_transparent_attn.safetensors"
DECODER_FILE_NAME = "dreamer_demo_transparent_decoder.safetensors"
EMBEDDING_FILE_NAME = "dreamer_demo_red.safetensors"


def ensure_checkpoint(models: Path | str) -> Path:
    """The demo checkpoint in `models`/compvis, written there on first use (330 MB, seconds).

    Raises OSError when it can't be written; nothing half-written stays under its name.
    """

    def write(checkpoint: Path) -> None:
        from hordelib.demo_model.expand import write_checkpoint

        write_checkpoint(TRAINED, checkpoint)

    return _ensure(Path(models) / "compvis" / FILE_NAME, write)


def ensure_control_net(models: Path | str) -> Path:
    """The demo model's ControlNet in `models`/controlnet, written there on first use (37 MB).

    It draws the shapes of edges (canny) and of filled maps (scribble). Raises OSError when it can't
    be written; nothing half-written stays under its name.
    """

    def write(control_net: Path) -> None:
        from hordelib.demo_model.control_net import write_control_net

        write_control_net(TRAINED_CONTROL, TRAINED, control_net)

    return _ensure(Path(models) / "controlnet" / CONTROL_FILE_NAME, write)


def ensure_lora(models: Path | str) -> Path:
    """The demo model's LoRA in `models`/lora, written there on first use (69 KB).

    Its UNet part swaps red and blue, its text encoder part circles and squares. Raises OSError when
    it can't be written.
    """

    def write(lora: Path) -> None:
        from hordelib.demo_model.adapters import write_lora

        write_lora(ensure_checkpoint(models), lora)

    return _ensure(Path(models) / "lora" / LORA_FILE_NAME, write)


def ensure_embedding(models: Path | str) -> Path:
    """The demo model's textual inversion in `models`/ti, written there on first use (2 KB).

    `embedding:dreamer_demo_red` says "red". Raises OSError when it can't be written.
    """

    def write(embedding: Path) -> None:
        from hordelib.demo_model.adapters import write_embedding

        write_embedding(ensure_checkpoint(models), embedding)

    return _ensure(Path(models) / "ti" / EMBEDDING_FILE_NAME, write)


def ensure_transparency(models: Path | str) -> tuple[Path, Path]:
    """LayerDiffuse's patches and decoder for the demo model, in `models`/miscellaneous (7 MB).

    Pictures become transparent where they are white. Raises OSError when they can't be written.
    """

    def write_patches(path: Path) -> None:
        from hordelib.demo_model.transparency import write_patches

        write_patches(ensure_checkpoint(models), path)

    def write_decoder(path: Path) -> None:
        from hordelib.demo_model.transparency import write_decoder

        write_decoder(path)

    folder = Path(models) / "miscellaneous"
    return (
        _ensure(folder / PATCHES_FILE_NAME, write_patches),
        _ensure(folder / DECODER_FILE_NAME, write_decoder),
    )


def _ensure(file: Path, write: Callable[[Path], None]) -> Path:
    """The file, written once, however many processes want it at once."""
    if file.is_file():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not file.is_file():
            _sweep(file)
            write(file)
    return file


def _sweep(file: Path) -> None:
    """Remove what a killed process had begun to write; its number is in the file's name."""
    for partial in file.parent.glob(f"{file.stem}.*.partial"):
        if not psutil.pid_exists(int(partial.suffixes[-2][1:])):
            partial.unlink(missing_ok=True)

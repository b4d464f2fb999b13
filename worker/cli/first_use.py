"""ComfyUI where no set-up has brought it: after `pip install`, the first command fetches it."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from hordelib.comfyui.device import default_folder
from hordelib.setup.comfyui_files import COMFYUI, RuntimeSetupError, Source, install_comfyui
from worker.errors import EngineUnusable

LOOK_SECONDS = 0.5  # between two looks at how much has arrived
PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


def ensure_comfyui(console: Console, source: Source = COMFYUI) -> None:
    """Install ComfyUI into its usual folder, unless there is one. Raises EngineUnusable."""
    folder = default_folder()
    if (folder / "execution.py").is_file():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun = f"fetching ComfyUI {source.version} into {folder}"
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))  # two commands may start at once
        with lock, _progress(console, begun, folder):
            version = install_comfyui(folder, source)
    except (RuntimeSetupError, OSError) as error:
        raise EngineUnusable(str(error)) from error
    console.print(f"ComfyUI {version} is in {folder}", soft_wrap=True)


@contextmanager
def _progress(console: Console, begun: str, folder: Path) -> Generator[None]:
    """One live line on a terminal, and a plain one now and then elsewhere."""
    over = threading.Event()
    with console.status(begun) as status:
        if not console.is_terminal:
            console.print(begun, soft_wrap=True)

        def tell() -> None:
            pause = LOOK_SECONDS if console.is_terminal else PLAIN_SECONDS
            while not over.wait(pause):
                told = f"{begun}: {_arrived_bytes(folder) / 1e6:.0f} MB so far"
                if console.is_terminal:
                    status.update(told)
                else:
                    console.print(told, soft_wrap=True)

        thread = threading.Thread(target=tell, name="progress")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _arrived_bytes(folder: Path) -> int:
    """Of the folders in which it is made ready, beside its own."""
    sizes = 0
    for path in folder.parent.glob(f".{folder.name}-partial-*/**/*"):
        try:
            sizes += path.lstat().st_size
        except OSError:  # it has just been moved
            continue
    return sizes

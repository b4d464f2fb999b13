import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image

from horde_safety import CACHE_FOLDER_PATH


@dataclass
class NSFWResult:
    is_nsfw: bool
    is_csam: bool


class NSFWChecker:
    def __init__(self, interrogator: Any, deep_danbooru_model: Any | None):
        pass

    def check_for_nsfw(
        self, image: Image, prompt: str | None = None, model_info: dict[str, Any] | None = None
    ) -> NSFWResult | None:
        match prompt:
            case "undecided":
                return None
            case "raise":
                raise RuntimeError("cannot reshape tensor")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die once" if _is_first_time():
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case _:
                pass
        return NSFWResult(is_nsfw=prompt in ("nsfw", "csam"), is_csam=prompt == "csam")


def _is_first_time() -> bool:
    try:
        (Path(CACHE_FOLDER_PATH) / "died").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

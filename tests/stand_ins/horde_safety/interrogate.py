from pathlib import Path

from horde_safety import CACHE_FOLDER_PATH


def get_interrogator_no_blip(clip_model_name: str = "", device: str | None = None) -> bytes:
    return (Path(CACHE_FOLDER_PATH) / "ViT-L-14.pt").read_bytes()

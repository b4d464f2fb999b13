from pathlib import Path

from horde_safety import CACHE_FOLDER_PATH


def get_deep_danbooru_model(model_path: str | Path = "", device: str = "cpu") -> bytes:
    weights = (Path(CACHE_FOLDER_PATH) / "model-resnet_custom_v3.pt").read_bytes()
    if weights == b"broken":
        raise RuntimeError("PytorchStreamReader failed reading zip archive")
    return weights

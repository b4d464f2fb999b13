from pathlib import Path
from typing import Any

from torch import nn

class DeepDanbooruModel(nn.Module): ...

def get_deep_danbooru_model(model_path: str | Path = ..., device: str = "cpu") -> Any: ...

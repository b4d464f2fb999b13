from collections.abc import Mapping
from typing import Any

from torch import nn

class AutoencoderKL(nn.Module):
    def __init__(self, *, ddconfig: Mapping[str, Any], embed_dim: int) -> None: ...

from typing import Any

from torch import nn

class RestoreFormer(nn.Module):
    def __init__(self, **settings: Any) -> None: ...

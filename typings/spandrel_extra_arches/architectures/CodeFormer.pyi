from typing import Any

from torch import nn

class CodeFormer(nn.Module):
    def __init__(self, **settings: Any) -> None: ...

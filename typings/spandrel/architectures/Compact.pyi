from typing import Any

from torch import nn

class Compact(nn.Module):
    def __init__(self, **settings: Any) -> None: ...

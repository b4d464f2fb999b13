from typing import Any

from torch import nn

class GFPGAN(nn.Module):
    def __init__(self, **settings: Any) -> None: ...

from typing import Any

from torch import nn

class ESRGAN(nn.Module):
    def __init__(self, **settings: Any) -> None: ...

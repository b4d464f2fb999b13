from collections.abc import Sequence

from torch import nn

class Adapter_light(nn.Module):
    input_channels: int
    def __init__(self, channels: Sequence[int], nums_rb: int, cin: int) -> None: ...

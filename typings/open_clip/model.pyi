from dataclasses import dataclass

from torch import nn

@dataclass
class CLIPVisionCfg:
    layers: int
    width: int
    patch_size: int
    image_size: int

@dataclass
class CLIPTextCfg:
    width: int
    heads: int
    layers: int

class CLIP(nn.Module):
    def __init__(
        self,
        embed_dim: int,
        vision_cfg: CLIPVisionCfg,
        text_cfg: CLIPTextCfg,
        quick_gelu: bool = False,
    ) -> None: ...

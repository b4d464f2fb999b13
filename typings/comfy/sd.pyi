from collections.abc import Mapping
from enum import Enum
from typing import Any

from torch import Tensor, dtype

class CLIPType(Enum): ...

class VAE:
    vae_dtype: dtype
    patcher: Any
    def __init__(self, sd: Mapping[str, Tensor]) -> None: ...
    def throw_exception_if_invalid(self) -> None: ...

def load_checkpoint_guess_config(
    ckpt_path: str,
    output_vae: bool = ...,
    output_clip: bool = ...,
    output_clipvision: bool = ...,
    *,
    output_model: bool = ...,
) -> tuple[Any, Any, Any, Any]: ...
def load_diffusion_model(unet_path: str) -> Any: ...
def load_clip(*, ckpt_paths: list[str], clip_type: CLIPType) -> Any: ...

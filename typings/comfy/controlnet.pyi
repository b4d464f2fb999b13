from collections.abc import Mapping
from typing import Any

from torch import dtype, nn

class ControlNet:
    control_model: Any
    control_model_wrapped: Any
    manual_cast_dtype: dtype | None
    previous_controlnet: Any

class T2IAdapter:
    t2i_model: Any
    previous_controlnet: Any
    def __init__(
        self, t2i_model: nn.Module, channels_in: int, compression_ratio: int, upscale_algorithm: str
    ) -> None: ...

def load_controlnet_state_dict(
    state_dict: dict[str, Any], *, model_options: Mapping[str, object] = ...
) -> Any: ...

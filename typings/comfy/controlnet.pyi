from typing import Any

from torch import dtype

class ControlNet:
    control_model: Any
    control_model_wrapped: Any
    manual_cast_dtype: dtype | None
    previous_controlnet: Any

def load_controlnet_state_dict(state_dict: dict[str, Any]) -> Any: ...

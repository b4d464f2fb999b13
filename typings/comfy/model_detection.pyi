from collections.abc import Mapping
from typing import Any

from torch import Tensor

def model_config_from_unet(state_dict: Mapping[str, Tensor], unet_key_prefix: str) -> Any: ...

from enum import Enum
from typing import Any

from torch import dtype

class BaseModel:
    manual_cast_dtype: dtype | None
    def get_dtype(self) -> dtype: ...

class ModelType(Enum):
    EPS = 1
    V_PREDICTION = 2

def model_sampling(model_config: Any, model_type: ModelType) -> Any: ...

from enum import Enum
from typing import Any

class BaseModel: ...

class ModelType(Enum):
    EPS = 1
    V_PREDICTION = 2

def model_sampling(model_config: Any, model_type: ModelType) -> Any: ...

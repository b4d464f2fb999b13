from torch import Tensor

class LoRAAdapter:
    def __init__(self, loaded_keys: set[str], weights: tuple[Tensor | None, ...]) -> None: ...

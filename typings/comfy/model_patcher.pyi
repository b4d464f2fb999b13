from torch import device
from torch.nn import Module

class ModelPatcher:
    def __init__(self, model: Module, load_device: device, offload_device: device) -> None: ...

def wipe_lowvram_weight(m: Module) -> None: ...

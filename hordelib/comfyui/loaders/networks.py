"""Networks that are none of ComfyUI's, on its patchers: the cache moves them as it does models."""

from __future__ import annotations

from typing import Any


def on_patcher(network: Any) -> Any:
    """A ModelPatcher of a torch module that starts in main memory."""
    import comfy.model_management
    import comfy.model_patcher

    return comfy.model_patcher.ModelPatcher(
        network,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def bring(patcher: Any) -> None:
    """Have the network on the device, all of it: its layers can't fetch their weights one by one.

    Raises OutOfMemory where the budget has no room for it and for what its computing takes.
    """
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher], force_full_load=True)

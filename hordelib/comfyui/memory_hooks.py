"""ComfyUI's memory is ours to manage: what replaces its functions, and what the cache calls."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hordelib.files.model_key import ModelKey
from hordelib.memory.heap import trim_heap
from hordelib.memory.loans import LENDER

if TYPE_CHECKING:
    from hordelib.memory.parts import LoadedPart


def install() -> None:
    """Once in a process, after ComfyUI was imported and before any model is read."""
    _map_files()
    _leave_memory_to_us()


def _leave_memory_to_us() -> None:
    """Who lends models brings them, makes room for them, and says what memory there is.

    ComfyUI looks these functions up in their modules at each call, which is the only way in.
    """
    import comfy.model_management as memory

    load_models, unload_models = memory.load_models_gpu, memory.free_memory
    measure_free = memory.get_free_memory

    def load_models_gpu(models: Collection[Any], *args: Any, **options: Any) -> None:
        lender = LENDER.get()
        if lender is None:
            load_models(models, *args, **options)
            return
        with_patches = [*models, *(each for m in models for each in m.model_patches_models())]
        with lender.undisturbed():
            lender.bring(with_patches)
            load_models(models, *args, **options)

    def free_memory(size_bytes: Any, device: Any, *args: Any, **options: Any) -> Any:
        lender = LENDER.get()
        if lender is None:
            return unload_models(size_bytes, device, *args, **options)
        with lender.undisturbed():
            if device == memory.get_torch_device():
                lender.make_room(int(size_bytes) + 1)  # more than that is what it looks for
            return unload_models(size_bytes, device, *args, **options)

    def get_free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
        lender = LENDER.get()
        device = memory.get_torch_device() if device is None else device
        if lender is None or device != memory.get_torch_device():
            return measure_free(device, torch_free_too)
        spare_bytes = max(0, lender.spare_bytes())
        if not torch_free_too:
            return spare_bytes
        torch_bytes = spare_bytes if device.type == "cpu" else measure_free(device, True)[1]
        return spare_bytes, torch_bytes

    memory.soft_empty_cache = _unless_lent(memory.soft_empty_cache)  # `settle` does it
    memory.cleanup_models_gc = _drop_what_is_gone  # called before each graph, too
    memory.unload_all_models = _unless_lent(memory.unload_all_models)
    memory.load_models_gpu = load_models_gpu
    memory.free_memory = free_memory
    memory.get_free_memory = get_free_memory


def _unless_lent(give_all: Callable[[], None]) -> Callable[..., None]:
    """A function of ComfyUI's that lets go of a card's memory: what a lender does as it is needed.

    Where a node ran out of memory, ComfyUI's executor has all weights copied to main memory, which
    may have no room for them. It empties the allocator's cache several times for each change of
    models.
    """

    def give_where_nobody_lends(*_arguments: Any, **_options: Any) -> None:
        if LENDER.get() is None:
            give_all()

    return give_where_nobody_lends


def _map_files() -> None:
    """Files are read as what they are, and mapped; models start in main memory."""
    import comfy.model_management as memory
    import comfy.utils as files

    from hordelib.comfyui.loaders import tensors
    from hordelib.memory import mapped_weights

    tensors.allow_leftovers()

    def load_torch_file(path: str, *, return_metadata: bool = False, **_options: Any) -> Any:
        read = partial(tensors.read_tensors, Path(path))
        state, metadata = mapped_weights.read_mapped(Path(path), read)
        return (state, metadata) if return_metadata else state

    files.load_torch_file = load_torch_file
    memory.unet_inital_load_device = memory.text_encoder_initial_device = _main_memory
    mapped_weights.install()


def _drop_what_is_gone() -> None:
    """Take patchers that are gone out of ComfyUI's list of loaded models.

    ComfyUI collects all garbage whenever it finds one there, often in vain: of a patcher that is
    collected together with the one it was cloned from, the entry stays for as long as its model.
    What is known of the model's weights is kept by the model, and by the patcher that we hold.
    """
    import comfy.model_management as memory

    loaded = memory.current_loaded_models
    loaded[:] = [each for each in loaded if not each.is_dead()]


def _main_memory(*_arguments: Any) -> Any:
    import torch

    return torch.device("cpu")


def reading_bytes(key: ModelKey) -> int:
    """The most that `read_part` takes of main memory; nothing of a file that is mapped."""
    from hordelib.comfyui.loaders import reading_bytes

    return reading_bytes(key)


def read_part(key: ModelKey) -> LoadedPart:
    """For the cache; what reading took for itself is given back. Raises what loaders do."""
    from hordelib.comfyui.loaders import load_part

    part = load_part(key)
    trim_heap()
    return part


def forget_models() -> None:
    """Give the memory of models that nobody refers to any more back to the system."""
    import gc

    import comfy.model_management

    gc.collect()
    comfy.model_management.cleanup_models()
    comfy.model_management.soft_empty_cache()
    trim_heap()

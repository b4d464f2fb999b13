"""What the cache moves: models on ComfyUI's patchers, and values that stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from hordelib.files.model_key import ModelKey
from hordelib.memory.heap import trim_heap
from hordelib.memory.mapped_weights import MappedWeights

COMPUTED_BYTES = 4  # of a number, on the CPU


@dataclass(slots=True, eq=False)
class Unmoved:
    """What has no patcher: it stays in main memory. `patchers` is what its node lends it by."""

    value: Any
    host_bytes: int
    patchers: tuple[Any, ...] = ()
    computes_in_host = True
    device_bytes = 0
    missing_bytes = 0
    staging_bytes = 0
    return_bytes = 0
    can_stream = True

    def make_way(self, _clone: Any) -> None:
        """It has no clones."""

    def patching_bytes(self, _clone: Any) -> int:
        """Nothing: it has no clones."""
        return 0

    def give_back(self, _size_bytes: int) -> bool:
        """It has nothing of a card."""
        return False

    def to_device(self) -> None:
        """It computes where it is."""

    def to_host(self) -> None:
        """It is there."""


def value_bytes(part: Any) -> int | None:
    """Of a number that a VAE or a diffusion model computes with, by ComfyUI's own choice for the
    device: on Turing a VAE takes 32 bits, for example. None of what has no such choice."""
    dtype = getattr(part.value, "vae_dtype", None)
    model: Any = getattr(part.value, "model", None)
    if dtype is None and model is not None and hasattr(model, "get_dtype"):
        dtype = getattr(model, "manual_cast_dtype", None) or model.get_dtype()
    # Weights of 8 bits are computed with in 16.
    return None if dtype is None else max(2, int(dtype.itemsize))


class Patched:
    """A model on a patcher of ComfyUI's. Clones of it, with LoRAs, share its weights.

    On a card ComfyUI copies the weights when it is about to compute, right after the part was lent;
    what is mapped comes off the card without being copied back. On the CPU the weights in the type
    that is computed in are what is on the device.
    """

    computes_in_host = False  # but where main memory is the device

    def __init__(self, value: Any, patcher: Any, weights: MappedWeights):
        import comfy.model_management as memory

        self.value = value
        self._patcher = patcher
        self._weights = weights
        # ComfyUI takes models off the device by itself, too; it copies them to main memory
        patcher.add_callback("on_detach_after", self._after_detach)
        self._own_bytes = memory.module_size(patcher.model) - weights.mapped_bytes
        patcher.size = self._own_bytes + weights.computed_bytes
        self._is_on_card = patcher.load_device.type != "cpu"
        self.can_stream = self._is_on_card and _casts_weights(patcher.model)

    @property
    def patchers(self) -> tuple[Any, ...]:
        return (self._patcher,)

    @property
    def host_bytes(self) -> int:
        return 0 if self.return_bytes else self._own_bytes

    @property
    def device_bytes(self) -> int:
        if self._is_on_card:
            return int(self._patcher.loaded_size())
        return self._weights.converted_bytes if self._weights.is_converted else 0

    @property
    def missing_bytes(self) -> int:
        if self._is_on_card:
            return int(self._patcher.model_size() - self._patcher.loaded_size())
        return self._weights.converted_bytes - self.device_bytes

    @property
    def staging_bytes(self) -> int:
        is_staged = self._is_on_card and not self._weights.is_converted
        return self._weights.converted_bytes if is_staged else 0

    @property
    def return_bytes(self) -> int:
        return self._own_bytes if self._is_on_card and self.device_bytes else 0

    def to_device(self) -> None:
        self._weights.convert()

    def give_back(self, size_bytes: int) -> bool:
        """Take about so much off a card; False where only the whole of it can go.

        ComfyUI brings what is missing with the next load, or streams it where there is no room.
        """

        loaded = self._loaded_clone() if self.can_stream else None
        device_bytes = self.device_bytes
        if loaded is None or size_bytes >= device_bytes or self._weights.converted_bytes:
            return False
        with self._weights.put_back_where_moved():
            loaded.partially_unload(loaded.offload_device, size_bytes)
        return self.device_bytes < device_bytes

    def _loaded_clone(self) -> Any:
        """The one whose patches are in the weights; None where it is gone."""
        import comfy.model_management as memory

        patches = self._patcher.model.current_weight_patches_uuid
        clones = (loaded.model for loaded in memory.current_loaded_models)
        ours = (clone for clone in clones if self._patcher.is_clone(clone))
        return next((clone for clone in ours if clone.patches_uuid == patches), None)

    def to_host(self) -> None:
        """Off the device, without the patches of whichever clone was there last."""
        self._take_off()
        trim_heap()

    def make_way(self, clone: Any) -> None:
        """Take what the clone patches, and what is patched now, off a card, before it is lent.

        The others stay, and ComfyUI brings what is missing, with the clone's patches. It would copy
        all weights to main memory, and then the clone's to the card.
        """
        model: Any = self._patcher.model
        patches = model.current_weight_patches_uuid
        if not self._is_on_card or patches in (None, clone.patches_uuid):
            return
        changed = {*self._patcher.backup, *clone.patches}
        modules = [
            module
            for name, module in model.named_modules()
            if all(each in module._parameters for each, _ in module.named_parameters())
            and (
                _is_patched_in_place(module)
                or any(f"{name}.{each}" in changed for each in module._parameters)
            )
        ]
        self._take_modules_off(modules)
        model.current_weight_patches_uuid = clone.patches_uuid  # as those that stayed are

    def _take_modules_off(self, modules: Collection[Any]) -> None:
        """As ComfyUI does with some of a model (partially_unload), without any patches."""
        import comfy.model_management as memory
        import comfy.utils
        from comfy.model_patcher import wipe_lowvram_weight

        model, backup = self._patcher.model, self._patcher.backup
        for name in list(backup):
            comfy.utils.set_attr_param(model, name, backup.pop(name).weight)
        for module in modules:
            if getattr(module, "comfy_patched_weights", False):
                model.model_loaded_weight_memory -= memory.module_size(module)
            module.comfy_patched_weights = False
            wipe_lowvram_weight(module)
        self._weights.give_again(modules)
        for module in modules:
            module.to(self._patcher.offload_device)  # what is no file's
        model.model_lowvram = True  # else nothing is looked for that may be missing

    def _take_off(self) -> None:
        import comfy.model_management as memory

        mine = [each for each in memory.current_loaded_models if self._patcher.is_clone(each.model)]
        for loaded in mine:
            memory.current_loaded_models.remove(loaded)
            loaded.model_finalizer.detach()
        self._weights.release()  # before ComfyUI would copy them back
        self._patcher.detach()

    def patching_bytes(self, clone: Any) -> int:
        """What the clone's patched weights take of the device beside the others.

        On a card they take the others' place, since those are in main memory already.
        """
        if self._is_on_card or not clone.patches:
            return 0
        own = clone.model.state_dict()
        return sum(own[name].numel() * COMPUTED_BYTES for name in clone.patches if name in own)

    def _after_detach(self, _patcher: Any, is_off_device: bool) -> None:
        if is_off_device:
            self._weights.release()


# Where the patcher of each kind is; a T2I-Adapter, which is small and brings itself, has none.
_PATCHERS: dict[str, Callable[[Any], Any]] = {
    "unet": lambda model: model,
    "diffusion_model": lambda model: model,
    "text_encoder": lambda clip: clip.patcher,
    "vae": lambda vae: vae.patcher,
    "control_net": lambda control_net: getattr(control_net, "control_model_wrapped", None),
    "clip_vision": lambda vision: vision.patcher,
    "annotator": lambda annotator: annotator.patcher,
    "upscaler": lambda upscaler: upscaler.patcher,
    "face_fixer": lambda fixer: fixer.patcher,
    "attention_sharing": lambda sharing: sharing.patcher,
    "transparent_decoder": lambda decoder: decoder.patcher,
    "picture_reader": lambda reader: reader.patcher,
}


LoadedPart = Unmoved | Patched


def _is_patched_in_place(module: Any) -> bool:
    """Whether it patches its weights whenever it fetches them."""
    return bool(getattr(module, "weight_function", ()) or getattr(module, "bias_function", ()))


def _casts_weights(network: Any) -> bool:
    """Whether it has ComfyUI's layers, which fetch their weights one by one; others can't."""
    return any(hasattr(module, "comfy_cast_weights") for module in network.modules())


def is_patched(key: ModelKey) -> bool:
    """Whether ComfyUI has a patcher for models of this kind."""
    return _noun(key) in _PATCHERS


def make_part(key: ModelKey, value: Any, weights: MappedWeights, file_bytes: int) -> LoadedPart:
    """The part that the cache moves, of what was read."""
    patcher = _PATCHERS[_noun(key)](value) if is_patched(key) else None
    if patcher is None:
        host_bytes = getattr(value, "host_bytes", None) or file_bytes
        return Unmoved(value, host_bytes, (value,) if key.kind == "background" else ())
    if _noun(key) == "vae":
        weights.compute_in(value.vae_dtype)
    return Patched(value, patcher, weights)


def _noun(key: ModelKey) -> str:
    return key.variant if key.kind == "checkpoint" else key.kind

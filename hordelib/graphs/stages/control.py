"""ControlNet: a picture that steers what is drawn where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hordelib.errors import InvalidParams, ModelMissing
from hordelib.files.model import Model
from hordelib.graph import Graph, Link
from hordelib.graphs.stages.hires import has_two_passes, start_size
from hordelib.graphs.stages.starts import add_image, add_scaled
from hordelib.job.control_types import CONTROL_TYPES, DIFFERENCE
from hordelib.job.params import Control, GenerationParams

Size = tuple[int, int]


def follow_control(graph: Graph, params: GenerationParams, model: Model) -> None:
    """Steer every sampler of the graph by the job's control picture; strength 0 does nothing.

    To come after every stage that changes what the samplers read. Each pass has a map of its own
    size: enlarging a map would break its thin lines. The ControlNet is told to the positive prompt
    alone, from where ComfyUI gives the same one to the negative prompt, so that both still go
    through the UNet together.
    """
    control = params.control
    if control is None or control.strength == 0:
        return
    picture = add_image(graph, "control", control.image)
    control_net = _add_control_net(graph, control, model)
    for sampler, size in _passes(params, model):
        title = f"{sampler}_control"
        prompt = graph.inputs(sampler)["positive"]
        graph.add(
            title,
            "ControlNetApply",
            conditioning=prompt,
            control_net=control_net,
            image=_add_maps(graph, f"{title}_map", params, picture, size),
            strength=control.strength,
        )
        graph.set(sampler, positive=Link(title, 0))


def draw_control_map(params: GenerationParams) -> Graph:
    """The graph whose pictures are the control map itself, at the job's size: nothing is sampled.

    Raises InvalidParams where there is nothing to draw a map of.
    """
    if params.control is None:
        raise InvalidParams("return_control_map", True, "a control_type and a source image")
    graph = Graph()
    picture = add_image(graph, "control", params.control.image)
    drawn = _add_maps(graph, "map", params, picture, (params.width, params.height))
    maps = drawn
    if not params.control.is_seeded:
        for i in range(1, params.images):
            maps = Link(graph.add(f"maps_{i}", "ImageBatch", image1=maps, image2=drawn), 0)
    graph.add("output", "SaveImage", images=maps, filename_prefix="dreamer")
    return graph


def _add_control_net(graph: Graph, control: Control, model: Model) -> Link:
    is_difference = control.model.name.startswith(DIFFERENCE)
    graph.add(
        "control_net",
        "DreamerControlNet",
        model=graph.inputs("sampler")["model"],
        control_net_name=str(control.model),
        base=str(model.files["checkpoint"]) if is_difference else "",
    )
    return Link("control_net", 0)


def _passes(params: GenerationParams, model: Model) -> Iterator[tuple[str, Size]]:
    """Every sampler of the graph with the size in pixels that it works at."""
    yield "sampler", start_size(params, model.family.native_side)
    if has_two_passes(params, model.family.native_side):
        yield "upscale_sampler", (params.width, params.height)


def _add_maps(
    graph: Graph, title: str, params: GenerationParams, picture: Link, size: Size
) -> Link:
    """The control map in that size, stretched to it as a source image is.

    One for all images, but of a type that draws another one for each seed: then one for each.
    """
    control = params.control
    assert control is not None
    scaled = add_scaled(graph, f"{title}_source", picture, size)
    if control.image_is_control:
        return scaled
    drawn: dict[str, Any] = {"image": scaled, "control_type": control.type.value}
    if CONTROL_TYPES[control.type].weights:
        graph.add(title, "DreamerAnnotator", **drawn, weights=_weights(control))
    elif control.is_seeded:
        graph.add(title, "DreamerSeededMaps", **drawn, seed=params.seed, images=params.images)
    else:
        graph.add(title, "DreamerPlainMap", **drawn)
    return Link(title, 0)


def _weights(control: Control) -> str:
    if control.annotator is None:
        raise ModelMissing(f"control_type {control.type}: no weights for its annotator")
    return str(control.annotator)

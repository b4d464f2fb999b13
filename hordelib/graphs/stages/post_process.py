"""Post-processing: what is done to the finished picture before it goes out."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.job.params import GenerationParams, PostProcessor, ProcessorKind


def post_process(graph: Graph, params: GenerationParams) -> None:
    """Put the post-processors between whatever `output` reads and `output`, in their order.

    To come after every stage that changes the picture.
    """
    for number, processor in enumerate(params.post_processing):
        title = f"{processor.kind.value}_{number}"
        picture: Link = graph.inputs("output")["images"]
        _add(graph, title, picture, processor, params.facefixer_strength)
        graph.set("output", images=Link(title, 0))


def _add(
    graph: Graph, title: str, picture: Link, processor: PostProcessor, face_strength: float
) -> None:
    name = str(processor.path)
    match processor.kind:
        case ProcessorKind.upscaler:
            model = graph.add(f"{title}_model", "UpscaleModelLoader", model_name=name)
            graph.add(title, "ImageUpscaleWithModel", upscale_model=Link(model, 0), image=picture)
        case ProcessorKind.face_fixer:
            strength = {"strength": face_strength}
            graph.add(title, "DreamerFaceFixer", image=picture, model_name=name, **strength)
        case ProcessorKind.background:
            graph.add(title, "DreamerStripBackground", image=picture, model_name=name)

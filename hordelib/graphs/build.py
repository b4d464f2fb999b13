"""From parameters to a graph: a spine per model family, then the stages that the job asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hordelib.files.model import INPAINTING, INSTRUCT, Model
from hordelib.graph import Graph
from hordelib.graphs.node_names import FILE_INPUTS, OUR_NODES
from hordelib.graphs.stages.cascade import run_in_two_stages
from hordelib.graphs.stages.control import draw_control_map, follow_control
from hordelib.graphs.stages.hires import fix_hires, start_size
from hordelib.graphs.stages.model_changes import apply_loras, tile
from hordelib.graphs.stages.post_process import post_process
from hordelib.graphs.stages.prompts import even_prompts, find_embeddings, guide, skip_clip_layers
from hordelib.graphs.stages.qr_code import hide_qr_code
from hordelib.graphs.stages.questions import answer, answer_together, score
from hordelib.graphs.stages.sampling import set_sampling, shift_noise
from hordelib.graphs.stages.starts import (
    change_as_told,
    show_mask,
    show_source,
    start_from_source,
)
from hordelib.graphs.stages.together import run_together
from hordelib.graphs.stages.transparency import make_transparent
from hordelib.job.batching import Member, common_params
from hordelib.job.families import CASCADE, Family
from hordelib.job.fitting import fit
from hordelib.job.params import GenerationParams, Inpaint, TextOnly

SPINES = Path(__file__).parents[2] / "comfy_workflows"
QR_CODE_SPINE = "qr_code.json"


def build_graph(params: GenerationParams, model: Model) -> Graph:
    """The graph of a job for a model. Pure: the same arguments always give the same graph."""
    params, _ = fit(params, model.family)
    if params.question is not None:
        return answer(params, params.question)
    if params.return_control_map:
        graph = draw_control_map(params)
    elif params.keep_source:
        graph = show_source(params)
    else:
        graph = _picture(params, model)
    post_process(graph, params)
    if params.scoring is not None:
        score(graph, params.scoring)
    graph.substitute(OUR_NODES)
    return graph


def build_shared_graph(members: Sequence[Member], model: Model) -> Graph:
    """The graph of jobs that share a batch, or of the only one; `share_key` says which ones may."""
    graph = build_graph(common_params(members), model)
    if len(members) > 1 and members[0].params.question is not None:
        answer_together(graph, members)
    elif len(members) > 1:
        run_together(graph, [_fitted(member, model.family) for member in members])
    return graph


def _fitted(member: Member, family: Family) -> Member:
    return replace(member, params=fit(member.params, family)[0])


def _picture(params: GenerationParams, model: Model) -> Graph:
    family = model.family
    graph = Graph.load(SPINES / (family.spine if params.qr_code is None else QR_CODE_SPINE))
    _name_files(graph, model)
    graph.set("prompt", text=params.prompt)
    graph.set("negative_prompt", text=params.negative_prompt)
    if params.qr_code is not None:
        hide_qr_code(graph, params, params.qr_code, family)
    else:
        _sample(graph, params, model)
    if family.joins_prompts:
        even_prompts(graph, family.clip)
    skip_clip_layers(graph, params.clip_skip, family.clip)
    if params.embeddings_folder is not None:
        find_embeddings(graph, params.embeddings_folder, family.clip)
    if params.transparent is not None:
        make_transparent(graph, params.transparent, family, is_tiling=params.tiling)
    if params.tiling:
        tile(graph, family.model, family.vae)
    apply_loras(graph, params.loras, family.model, family.clip)
    return graph


def _name_files(graph: Graph, model: Model) -> None:
    for title, path in model.files.items():
        node = OUR_NODES[graph.class_type(title)]
        graph.set(title, **{FILE_INPUTS[node].path: str(path)})


def _sample(graph: Graph, params: GenerationParams, model: Model) -> None:
    """From what the job starts with to the latent that is decoded."""
    family = model.family
    size = start_size(params, family.native_side)
    _fill(graph, params, size, family)
    if family.is_guided:
        guide(graph, params.cfg)
    if family is CASCADE:
        run_in_two_stages(graph, params, size, family.native_side)
        return
    start_from_source(graph, params, size, family.vae)
    if model.channels == INSTRUCT and not isinstance(params.source, TextOnly):
        change_as_told(graph, family.vae)
    if model.channels == INPAINTING and isinstance(params.source, Inpaint):
        show_mask(graph, family.vae)
    fix_hires(graph, params, family.native_side)
    follow_control(graph, params, model)


def _fill(graph: Graph, params: GenerationParams, size: tuple[int, int], family: Family) -> None:
    graph.set("latent", width=size[0], height=size[1], batch_size=params.images)
    graph.set("sampler", seed=params.seed)
    set_sampling(graph, "sampler", params, family)
    if params.flow_shift is not None:
        shift_noise(graph, params.flow_shift, size, family.model)

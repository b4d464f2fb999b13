from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hordelib.files.model import Model
from hordelib.graph import Graph, Link
from hordelib.graphs.build import SPINES, build_graph
from hordelib.graphs.node_names import OUR_NODES
from hordelib.job.families import SD1
from hordelib.job.params import GenerationParams
from hordelib.job.samplers import SAMPLERS, Scheduler

GOLDEN = Path(__file__).parents[2] / "golden"
MODEL = Model("m", SD1, {"checkpoint": Path("model.safetensors")})

# One golden file each: what a change of the graph code changes is seen in the diff.
CASES = {
    "plain": GenerationParams(prompt="a fox", seed=7),
    "everything": GenerationParams(
        prompt="(a fox:1.3) in the snow",
        negative_prompt="blurry",
        width=768,
        height=1024,
        seed=(1 << 64) - 1,
        images=4,
        steps=12,
        cfg=6.5,
        sampler=SAMPLERS["k_dpmpp_sde"],
        scheduler=Scheduler.karras,
        clip_skip=2,
    ),
    "hires_fix": GenerationParams(
        prompt="a fox", seed=7, width=768, height=1024, steps=30, hires_fix=True, clip_skip=3
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_become_the_golden_graph(name: str):
    graph = build_graph(CASES[name], MODEL).to_api()
    assert graph == json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


def test_the_same_parameters_give_the_same_graph():
    one, other = (build_graph(CASES["everything"], MODEL).to_api() for _ in range(2))
    assert one == other


@pytest.mark.parametrize("spine", sorted(SPINES.glob("*.json")), ids=lambda spine: spine.stem)
def test_spines_are_plain_comfyui_with_unique_snake_case_titles(spine: Path):
    nodes = json.loads(spine.read_text("utf-8"))
    titles = [node["_meta"]["title"] for node in nodes.values()]
    assert len(set(titles)) == len(titles)
    assert all(title.isidentifier() and title == title.lower() for title in titles)
    assert not {node["class_type"] for node in nodes.values()} & set(OUR_NODES.values())


def test_a_node_inserted_behind_an_output_is_read_by_all_its_readers():
    graph = Graph()
    graph.add("loader", "Loader", name="x")
    graph.add("one", "Reader", clip=Link("loader", 1))
    graph.add("two", "Reader", clip=Link("loader", 1), model=Link("loader", 0))

    graph.insert(Link("loader", 1), "skip", "Skip", reads="clip", layer=-2)

    api = graph.to_api()
    assert api["skip"]["inputs"] == {"clip": ["loader", 1], "layer": -2}
    assert api["one"]["inputs"]["clip"] == api["two"]["inputs"]["clip"] == ["skip", 0]
    assert api["two"]["inputs"]["model"] == ["loader", 0]


def test_a_misspelt_input_is_refused():
    with pytest.raises(KeyError, match="no input"):
        build_graph(CASES["plain"], MODEL).set("sampler", step=3)


def test_two_nodes_of_one_title_are_refused(tmp_path: Path):
    node: dict[str, Any] = {"class_type": "X", "inputs": {}, "_meta": {"title": "same"}}
    spine = tmp_path / "spine.json"
    spine.write_text(json.dumps({"1": node, "2": node}), "utf-8")
    with pytest.raises(ValueError, match="not unique"):
        Graph.load(spine)

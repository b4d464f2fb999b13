"""ComfyUI as a guest: our graphs are valid to it, and it leaves the program around it alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hordelib import Engine
from hordelib.comfyui.device import Device, default_folder
from hordelib.comfyui.executor import Executor
from hordelib.comfyui.nodes.context import RunContext, Wanted
from hordelib.comfyui.versions import knows, version_in
from hordelib.engine import unwatched
from hordelib.errors import GenerationFailed
from hordelib.graphs.build import SPINES, build_graph
from hordelib.graphs.node_names import OUR_NODES
from hordelib.job.families import FAMILIES
from hordelib.setup.comfyui_files import COMFYUI
from tests.hordelib.graphs.test_graph import CASES, MODEL
from tests.hordelib.test_engine import SMALL
from tests.support.family_files import touch_files_of_the_reference
from tests.support.owner import PROJECT
from tests.support.whole_checkpoint import load_keys

STOCK = {ours: theirs for theirs, ours in OUR_NODES.items()}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", CASES)
def test_our_graphs_are_valid_to_comfyui(name: str):
    assert _problems(build_graph(CASES[name], MODEL).to_api()) == ""


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("spine", sorted(SPINES.glob("*.json")), ids=lambda spine: spine.stem)
def test_spines_are_valid_to_comfyui_as_they_are(spine: Path, checkpoint: Path, tmp_path: Path):
    """What somebody sees who opens them in ComfyUI beside a horde worker's models."""
    import folder_paths

    families = [each for each in FAMILIES.values() if each.spine == spine.name]
    folder = Path(folder_paths.__file__).parent
    if families and not any(knows(folder, each) for each in families):
        pytest.skip("the family needs a newer ComfyUI")
    folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent))
    touch_files_of_the_reference(tmp_path)
    assert _problems(json.loads(spine.read_text("utf-8"))) == ""


@pytest.mark.usefixtures("engine")
def test_a_broken_graph_is_not_valid_to_comfyui():
    graph = build_graph(SMALL, MODEL).to_api()
    graph["sampler"]["inputs"]["sampler_name"] = "k_best"
    assert "k_best" in _problems(graph)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_sde", "uni_pc"])
def test_a_single_picture_is_stock_comfyuis_bit_for_bit(
    engine: Engine, checkpoint: Path, sampler: str
):
    """KSampler in place of our sampler node: the same graph, the same pixels."""
    ours = build_graph(SMALL, MODEL)
    ours.set("sampler", sampler_name=sampler, steps=6)
    theirs = ours.to_api()
    theirs["sampler"]["class_type"] = STOCK["DreamerSampler"]
    engine.start()
    assert _run(ours.to_api(), checkpoint) == _run(theirs, checkpoint)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("wanted", [0, 2])
def test_another_number_of_images_than_is_wanted_fails_the_run(checkpoint: Path, wanted: int):
    """Nobody could say whose they are."""
    graph = build_graph(SMALL, MODEL)
    graph.set("sampler", steps=1)
    context = _context(checkpoint, *(Wanted("", i, i) for i in range(wanted)))
    with pytest.raises(GenerationFailed, match=f"the graph gave 1 images, and {wanted} are wanted"):
        Executor(Device("cpu")).run(graph.to_api(), context)
    assert context.pictures == []


@pytest.mark.usefixtures("engine")
def test_the_images_of_one_run_may_be_of_several_jobs(checkpoint: Path):
    graph = build_graph(replace(SMALL, images=2, steps=1), MODEL)
    context = _context(checkpoint, Wanted("a", 3, 11), Wanted("b", 0, 12))
    Executor(Device("cpu")).run(graph.to_api(), context)
    assert [(each.job_id, each.index, each.seed) for each in context.pictures] == [
        ("a", 3, 11),
        ("b", 0, 12),
    ]


def _run(graph: dict[str, Any], checkpoint: Path) -> list[bytes]:
    context = _context(checkpoint, Wanted("", 0, 0))
    Executor(Device("cpu")).run(graph, context)
    return [picture.pixels for picture in context.pictures]


def _context(checkpoint: Path, *wanted: Wanted) -> RunContext:
    path = MODEL.files["checkpoint"]
    models = {replace(key, path=path): part for key, part in load_keys(checkpoint).items()}
    return RunContext(models, {}, unwatched, threading.Event(), wanted)


def _problems(graph: dict[str, Any]) -> str:
    import execution

    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("job", graph, None))
    return "" if valid and outputs else json.dumps([error, node_errors], default=str)


def _python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of somebody else's that uses our library."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=200,
    )


def test_importing_us_loads_no_torch_and_makes_no_file(tmp_path: Path):
    done = _python(
        "import logging, worker.line.bridge, worker.demo.run, worker.cli.check\n"
        "from hordelib import *\n"
        "assert 'torch' not in sys.modules and 'comfy' not in sys.modules\n"
        "assert logging.getLogger().handlers == []",
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_what_asks_a_running_worker_waits_for_no_engine_and_no_web_server(tmp_path: Path):
    done = _python(
        "from worker.cli import commands, running_worker\n"
        "heavy = {'hordelib.engine', 'aiohttp', 'textual', 'torch'} & sys.modules.keys()\n"
        "assert not heavy, heavy",
        tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_comfyui_leaves_the_programs_log_arguments_and_modules_alone(
    tmp_path: Path, checkpoint: Path
):
    """A program with a `utils` and a `server` of its own, and arguments that ComfyUI knows."""
    for name in ("utils", "server", "app"):
        (tmp_path / f"{name}.py").write_text("mine = True\n", "utf-8")
    done = _python(
        "import logging, utils, server, app\n"
        "sys.argv = ['program', '--lowvram', '--unknown']\n"
        "from hordelib import Engine, GenerationParams\n"
        "with Engine() as engine:\n"
        "    params = GenerationParams(prompt='a red circle', width=64, height=64, steps=1)\n"
        f"    engine.generate(params, {str(checkpoint)!r})\n"
        "assert utils.mine and server.mine and app.mine\n"
        "assert logging.getLogger().handlers == [], logging.getLogger().handlers\n"
        "assert sys.argv == ['program', '--lowvram', '--unknown']\n"
        "import comfy.cli_args; assert not comfy.cli_args.args.lowvram\n"
        "assert 'comfy_api_nodes' not in sys.modules\n"
        "print('fine')",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert done.stderr == ""


def test_a_program_with_a_module_of_comfyuis_name_is_told_so(tmp_path: Path):
    (tmp_path / "nodes.py").touch()
    done = _python("import nodes\nfrom hordelib import Engine\nEngine().start()", tmp_path)
    assert "EngineError: a module named 'nodes' is loaded from" in done.stderr


def test_what_hardly_anybody_computes_with_is_left_out_of_a_start_and_comes_when_it_is_asked_for(
    tmp_path: Path, checkpoint: Path
):
    if version_in(default_folder()) != COMFYUI.version:
        pytest.skip("a newer ComfyUI needs all of it from the start on (decision 0017)")
    done = _python(
        "from dataclasses import replace\n"
        "from hordelib import Engine\n"
        "from hordelib.job.samplers import SAMPLERS, Scheduler\n"
        "from tests.hordelib.test_engine import SMALL\n"
        "heavy = 'torch._dynamo', 'torch.distributed.tensor', 'triton', 'sympy', 'scipy.stats',"
        " 'scipy.ndimage', 'transformers', 'transformers.models'\n"
        "job = replace(SMALL, sampler=SAMPLERS['k_lms'], scheduler=Scheduler.beta)\n"
        "with Engine() as engine:\n"
        f"    engine.generate(SMALL, {str(checkpoint)!r})\n"
        "    print([name for name in heavy if name in sys.modules])\n"
        f"    engine.generate(job, {str(checkpoint)!r})\n"
        "import scipy.stats, torch.distributed.tensor\n"
        "from torchvision.ops.roi_align import is_compile_supported\n"
        "print(scipy.stats.beta.mean(1, 3), torch.distributed.tensor.DTensor.__name__)\n"
        "print('torch._dynamo' in sys.modules)\n"
        "import transformers\n"
        "print(transformers.UperNetConfig.__name__, transformers.models.clip.__name__)\n"
        "assert transformers.CLIPTokenizer is sys.modules['comfy.sd1_clip'].CLIPTokenizer\n"
        "answer = is_compile_supported('cpu')\n"
        "import torch._dynamo.utils\n"
        "print(answer == torch._dynamo.utils.is_compile_supported('cpu'))",
        tmp_path,
    )
    assert done.stdout == (
        "[]\n0.25 DTensor\nFalse\nUperNetConfig transformers.models.clip\nTrue\n"
    ), done.stderr


@pytest.mark.parametrize(
    ("needy", "got"),
    [
        ("import scipy.stats.qmc\nneeded = scipy.stats.qmc.Sobol\n", "Sobol"),
        ("from transformers import BatchEncoding as needed\n", "BatchEncoding"),
    ],
)
def test_a_module_that_needs_a_part_of_what_is_left_out_gets_it(
    tmp_path: Path, needy: str, got: str
):
    (tmp_path / "needy.py").write_text(needy)
    done = _python(
        "sys.path.insert(0, '')\n"
        "from hordelib.comfyui.lean_imports import import_lean\n"
        "import_lean(['needy'])\n"
        "print(sys.modules['needy'].needed.__name__)",
        tmp_path,
    )
    assert (done.stdout, done.stderr) == (f"{got}\n", "")

"""Model families: known by their files, and every one's graphs as they have to be."""

from __future__ import annotations

import asyncio
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hordelib import GenerationParams
from hordelib.comfyui import versions
from hordelib.comfyui.device import default_folder
from hordelib.comfyui.loaders import load
from hordelib.demo_model import TRAINED
from hordelib.errors import ModelBroken, ModelMissing, NotServed
from hordelib.files.headers import detect
from hordelib.files.model import Model
from hordelib.files.model_key import ModelKey
from hordelib.graph import Graph, Link
from hordelib.graphs.build import build_graph
from hordelib.job.control_types import ControlType
from hordelib.job.families import (
    ANIMA,
    CASCADE,
    FAMILIES,
    FLUX,
    FLUX_DEV,
    KREA2,
    QWEN_IMAGE,
    SD1,
    SD2,
    SDXL,
    Z_IMAGE,
    Family,
)
from hordelib.job.fitting import fit
from hordelib.job.images import SourceImage
from hordelib.job.params import (
    Control,
    FromImage,
    Inpaint,
    Lora,
    PostProcessor,
    ProcessorKind,
    QrCode,
    Remix,
    TextOnly,
    Transparency,
)
from hordelib.job.samplers import SAMPLERS, SamplerOptions, Scheduler
from tests.support.family_files import HEADERS, UNET, model_of, write_header
from tests.support.layouts import write_sd2, write_sdxl

SOURCE = SourceImage(8, 8, "RGB", bytes(8 * 8 * 3))
MASK = SourceImage(8, 8, "L", bytes(8 * 8))
BASE = GenerationParams(
    prompt="a red circle",
    negative_prompt="blurry",
    width=1024,
    height=1024,
    seed=7,
    images=2,
    steps=30,
    cfg=3.5,
    sampler=SAMPLERS["k_dpmpp_2m"],
    scheduler=Scheduler.karras,
)
JOBS = {
    "text": BASE,
    "image": replace(BASE, source=FromImage(SOURCE), denoise=0.4),
    "inpaint": replace(BASE, source=Inpaint(SOURCE, MASK)),
    "large": replace(BASE, width=2048, height=2048, hires_fix=True),
    "large image": replace(
        BASE, width=2048, height=1536, hires_fix=True, source=FromImage(SOURCE), denoise=0.4
    ),
    "clip skip": replace(BASE, clip_skip=2),
}
KNOWN = [name for name, row in FAMILIES.items() if versions.knows(default_folder(), row)]
CLEAR = Transparency(Path("patches"), Path("decoder"))
REMIX = replace(BASE, source=Remix(((SOURCE, 1.0), (SOURCE, 0.5))))


# ---- known by their files --------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "net.", ""])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_known_by_the_names_in_a_file(tmp_path: Path, name: str, prefix: str):
    path = write_header(tmp_path / "model.safetensors", HEADERS[name], prefix)
    assert detect(path) == (FAMILIES[name], 4)


@pytest.mark.parametrize("channels", [4, 8, 9])
def test_the_unets_input_channels_are_read_from_the_file(tmp_path: Path, channels: int):
    shapes = HEADERS["stable diffusion 1"] | {"input_blocks.0.0.weight": (320, channels, 3, 3)}
    path = write_header(tmp_path / "model.safetensors", shapes)
    assert detect(path) == (SD1, channels)


@pytest.mark.usefixtures("engine")
def test_complete_layouts_are_known(tmp_path: Path, checkpoint: Path):
    assert detect(checkpoint) == (SD1, 4)
    assert detect(write_sd2(tmp_path / "2.safetensors"))[0].name == "stable diffusion 2"
    assert detect(write_sdxl(tmp_path / "xl.safetensors"))[0] is SDXL


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", [name for name in KNOWN if FAMILIES[name].spine != SD1.spine])
def test_comfyui_knows_the_larger_families_by_the_same_names(name: str):
    """Its network, built without memory: no machine of ours holds one of these."""
    from comfy.model_detection import model_config_from_unet

    tensors = {
        UNET + key: torch.empty(shape, device="meta") for key, shape in HEADERS[name].items()
    }
    config = model_config_from_unet(tensors, UNET)
    config.set_inference_dtype(torch.bfloat16, None)
    network = config.get_model(tensors, UNET, device="meta")
    assert type(network).__name__ in FAMILIES[name].comfy_classes


def test_a_family_of_several_files_finds_them_beside_its_main_one(tmp_path: Path):
    (tmp_path / "compvis").mkdir()
    path = write_header(tmp_path / "compvis" / "my_qwen.safetensors", HEADERS["qwen_image"])
    assert Model.of_checkpoint(path).files == {
        "diffusion_model": path,
        "text_encoder": tmp_path / "text_encoders" / "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "vae": tmp_path / "vae" / "qwen_image_vae.safetensors",
    }


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"clf.1.weight": (1,), "clip_mapper.weight": (1,)}, "name the file of stage C"),
        (
            {**HEADERS["flux_1"], "double_stream_modulation_img.lin.weight": (1,)},
            "of no model family that is served",
        ),
        (
            {**HEADERS["flux_dev"], "img_in.weight": (3072, 384)},
            "of no model family that is served",
        ),
        ({"something.weight": (1,)}, "of no model family that is served"),
    ],
)
def test_a_model_of_no_family_of_ours_is_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], told: str
):
    with pytest.raises(ModelBroken, match=told):
        detect(write_header(tmp_path / "model.safetensors", shapes))


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}"]
)
def test_a_broken_file_is_refused_by_its_name(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        detect(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ModelMissing, match=r"gone\.safetensors"):
        detect(tmp_path / "gone.safetensors")


def test_a_pickles_tensors_are_read_by_name_without_unpickling(tmp_path: Path):
    shapes = HEADERS["stable diffusion 2"] | {"input_blocks.0.0.weight": (320, 9, 3, 3)}
    tensors = {
        f"model.diffusion_model.{name}": torch.zeros(shape) for name, shape in shapes.items()
    }
    saved = {"state_dict": tensors, "callbacks": {Path: [Path("some"), _Callback()]}, "epoch": 3}
    torch.save(saved, tmp_path / "model.ckpt")
    family, channels = detect(tmp_path / "model.ckpt")
    assert (family.name, channels) == ("stable diffusion 2", 9)


class _Callback:
    """What trainers leave in a checkpoint."""

    def __init__(self) -> None:
        self.best = 1.0


class _Evil:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trace,)


def test_nothing_that_a_pickle_says_is_done(tmp_path: Path):
    trace = tmp_path / "trace"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "evil": _Evil(trace)}, tmp_path / "a.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"evil": _Evil(trace)}))
    for name in ("a.ckpt", "old.ckpt"):
        try:
            detect(tmp_path / name)
        except ModelBroken:
            continue
    assert not trace.exists()


def test_a_pickle_of_an_old_torch_tells_its_family_too(tmp_path: Path):
    tensors = {
        f"model.diffusion_model.{name}": torch.zeros(shape)
        for name, shape in HEADERS["stable diffusion 2"].items()
    }
    path = tmp_path / "old.ckpt"
    torch.save({"state_dict": tensors}, path, _use_new_zipfile_serialization=False)
    assert detect(path) == (SD2, 4)


@pytest.mark.parametrize(
    ("family", "channels"),
    [("stable diffusion 1", 5), ("stable diffusion 2", 5), ("stable diffusion 2", 7)],
)
def test_depth_models_and_upscalers_are_refused_before_they_are_offered(
    tmp_path: Path, family: str, channels: int
):
    shapes = HEADERS[family] | {"input_blocks.0.0.weight": (320, channels, 3, 3)}
    with pytest.raises(ModelBroken, match=rf"reads {channels} channels.*name another file"):
        detect(write_header(tmp_path / "model.safetensors", shapes))


# ---- graphs ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", KNOWN)
def test_every_familys_graphs_are_valid_to_comfyui(name: str, job: str):
    assert _problems(build_graph(JOBS[job], model_of(FAMILIES[name])).to_api()) == ""


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("channels", [8, 9])
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("family", [SD1, SDXL], ids=lambda family: family.name)
def test_graphs_of_models_that_see_the_source_are_valid_to_comfyui(
    family: Family, job: str, channels: int
):
    assert _problems(build_graph(JOBS[job], model_of(family, channels)).to_api()) == ""


@pytest.mark.usefixtures("engine")
def test_the_remix_graph_is_valid_to_comfyui():
    assert _problems(build_graph(REMIX, model_of(CASCADE)).to_api()) == ""


def _problems(graph: dict[str, Any]) -> str:
    import execution

    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("job", graph, None))
    return "" if valid and outputs else json.dumps([error, node_errors], default=str)


GOLDEN = Path(__file__).parents[2] / "golden"
GOLDEN_JOBS: dict[str, tuple[GenerationParams, Family]] = {
    "cascade_two_passes": (JOBS["large"], CASCADE),
    "cascade_inpaint": (JOBS["inpaint"], CASCADE),
    "cascade_remix": (REMIX, CASCADE),
    "flux_dev_image": (JOBS["image"], FLUX_DEV),
    "qwen_image": (JOBS["text"], QWEN_IMAGE),
    "z_image": (JOBS["text"], Z_IMAGE),
    "krea2": (JOBS["text"], KREA2),
    "anima": (JOBS["text"], ANIMA),
    "qr_code": (
        replace(BASE, qr_code=QrCode(text="aihorde.net", model=Path("qr.safetensors"))),
        SDXL,
    ),
}


@pytest.mark.parametrize("name", GOLDEN_JOBS)
def test_jobs_become_the_golden_graphs(name: str):
    """One file each: what a change of the graph code changes is seen in the diff."""
    job, family = GOLDEN_JOBS[name]
    graph = build_graph(job, model_of(family)).to_api()
    assert graph == json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_sampler_has_the_jobs_seed_sampler_and_scheduler(name: str, job: str):
    """Exported literals stayed in the incumbents' second passes and in Flux's scheduler."""
    graph = build_graph(JOBS[job], model_of(FAMILIES[name]))
    samplers = [title for title in graph.titles if graph.class_type(title) == "DreamerSampler"]
    assert samplers
    for title in samplers:
        inputs = graph.inputs(title)
        assert (inputs["seed"], inputs["sampler_name"], inputs["scheduler"]) == (
            7,
            "dpmpp_2m",
            "karras",
        )


NOISY = replace(
    BASE,
    sampler=SAMPLERS["dpmpp_2m_sde"],
    sampler_options=SamplerOptions(eta=0.5, solver_type="heun"),
    scheduler=Scheduler.align_your_steps,
)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_sampler_has_the_jobs_options_and_the_familys_schedule(name: str, job: str):
    """Second passes and Cascade's stage B too."""
    noisy = ("sampler", "sampler_options", "scheduler")
    params = replace(JOBS[job], **{key: getattr(NOISY, key) for key in noisy})
    graph = build_graph(params, model_of(FAMILIES[name]))
    table = {"stable diffusion 1": "_SD1", "stable_diffusion_xl": "_SDXL"}.get(name)
    expected = f"align_your_steps{table}" if table else "simple"
    samplers = [title for title in graph.titles if graph.class_type(title) == "DreamerSampler"]
    for title in samplers:
        inputs = graph.inputs(title)
        assert json.loads(inputs["options"]) == {"eta": 0.5, "solver_type": "heun"}
        assert inputs["scheduler"] == expected


def test_the_qr_workflow_has_options_and_a_strength_of_its_control():
    code = QrCode(text="a", model=Path("a"), strength=2.0)
    graph = build_graph(replace(NOISY, qr_code=code), model_of(SDXL))
    for title in ("data_sampler", "function_sampler", "sampler"):
        inputs = graph.inputs(title)
        assert json.loads(inputs["options"]) == {"eta": 0.5, "solver_type": "heun"}
        assert inputs["scheduler"] == "align_your_steps_SDXL"
    strengths = [
        graph.inputs(f"{name}_control")["strength"] for name in ("data", "function", "code")
    ]
    assert strengths == [2.0, 10.0, 3.0], "twice the usual, and 10 is ComfyUI's most"


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("family", [SD1, FLUX, FLUX_DEV, QWEN_IMAGE], ids=lambda each: each.name)
def test_graphs_with_options_and_shifts_are_valid_to_comfyui(family: Family):
    options = SamplerOptions(solver_type="phi_1")
    sampler = SAMPLERS["exp_heun_2_x0"]
    job = replace(NOISY, sampler=sampler, sampler_options=options, flow_shift=2.5)
    assert _problems(build_graph(job, model_of(family)).to_api()) == ""


@pytest.mark.parametrize("name", FAMILIES)
def test_every_batch_has_its_images(name: str):
    """Whatever it starts from: as many latents as images reach the sampler."""
    for job in JOBS.values():
        latent = build_graph(job, model_of(FAMILIES[name])).inputs("latent")
        assert latent.get("batch_size", latent.get("amount")) == 2


def test_cascades_steps_are_shared_between_its_stages():
    graph = build_graph(BASE, model_of(CASCADE))
    assert (graph.inputs("sampler")["steps"], graph.inputs("sampler_b")["steps"]) == (20, 10)
    one = build_graph(replace(BASE, steps=1), model_of(CASCADE))
    assert (one.inputs("sampler")["steps"], one.inputs("sampler_b")["steps"]) == (1, 1)


def test_cascades_stage_b_has_the_same_cfg_in_both_passes():
    graph = build_graph(JOBS["large"], model_of(CASCADE))
    assert graph.inputs("sampler")["cfg"] == graph.inputs("upscale_sampler")["cfg"] == 3.5
    assert graph.inputs("sampler_b")["cfg"] == graph.inputs("upscale_sampler_b")["cfg"] == 1.1


def test_cascades_second_pass_ends_in_the_picture_that_is_decoded():
    graph = build_graph(JOBS["large"], model_of(CASCADE))
    assert graph.inputs("decode")["samples"] == Link("upscale_sampler_b", 0)
    assert graph.inputs("upscale_prior")["stage_c"] == Link("upscale_sampler", 0)
    assert graph.inputs("first_decode")["samples"] == Link("sampler_b", 0)
    assert graph.inputs("upscale_sampler")["denoise"] == 0.65
    scaled = graph.inputs("upscale")
    assert (scaled["width"], scaled["height"]) == (2048, 2048)


def test_only_cascades_stage_c_gives_up_less_of_a_source():
    graph = build_graph(JOBS["image"], model_of(CASCADE))
    assert graph.inputs("sampler")["denoise"] == 0.4
    assert graph.inputs("sampler_b")["denoise"] == 1.0
    assert graph.inputs("sampler_b")["latent_image"] == Link("latent_b", 0)


def test_a_remix_adds_every_picture_by_its_strength():
    graph = build_graph(REMIX, model_of(CASCADE))
    last = graph.inputs("sampler")["positive"]
    told = [graph.inputs(title) for title in ("remix_0_told", "remix_1_told")]
    assert last == Link("remix_1_told", 0)
    assert [inputs["strength"] for inputs in told] == [1.0, 0.5]
    assert told[1]["conditioning"] == Link("remix_0_told", 0)
    assert graph.inputs("prior")["stage_c"] == Link("sampler", 0)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_sampler_and_prompt_reads_what_loras_make_of_the_model(name: str, job: str):
    """Some of the incumbents' graphs left out the second sampler, some the text encoder."""
    family = FAMILIES[name]
    graph = build_graph(replace(JOBS[job], loras=LORAS), model_of(family))
    for reader in ("sampler", "upscale_sampler"):
        if reader in graph.titles:
            assert _origins(graph, graph.inputs(reader)["model"])[-3:] == [*APPLIED, family.model]
    for reader in ("prompt", "negative_prompt"):
        assert _origins(graph, graph.inputs(reader)["clip"])[-3:] == [*APPLIED, family.clip]


LORAS = (Lora("one", Path("one.safetensors")), Lora("two", Path("two.safetensors")))
APPLIED = ["lora_1", "lora_0"]


def _origins(graph: Graph, link: Link) -> list[str | Link]:
    """The titles that a model or a text encoder passes through, and where it comes from."""
    passed: list[str | Link] = []
    while (inputs := graph.inputs(link.node)).keys() & {"model", "clip"}:
        passed.append(link.node)
        is_clip = "model" not in inputs or (link.slot == 1 and "clip" in inputs)
        link = inputs["clip" if is_clip else "model"]
    return [*passed, link]


def test_qwen_images_shift_stays_behind_whatever_changes_the_model():
    """A LoRA used to be linked past it."""
    graph = build_graph(replace(BASE, loras=LORAS), model_of(QWEN_IMAGE))
    assert graph.inputs("sampler")["model"] == Link("shift", 0)
    assert graph.inputs("shift") == {"model": Link("lora_1", 0), "shift": 3.1}


def test_a_flow_shift_is_the_models_whatever_the_size():
    shifted = replace(BASE, flow_shift=2.5, loras=LORAS)
    flux = build_graph(shifted, model_of(FLUX))
    assert flux.inputs("shift") == {
        "model": Link("lora_1", 0),
        "max_shift": 2.5,
        "base_shift": 2.5,
        "width": 1024,
        "height": 1024,
    }
    assert flux.inputs("sampler")["model"] == Link("shift", 0)
    qwen = build_graph(shifted, model_of(QWEN_IMAGE))
    assert qwen.inputs("shift") == {"model": Link("lora_1", 0), "shift": 2.5}


def test_z_image_takes_the_jobs_steps_and_cfg():
    sampler = build_graph(BASE, model_of(Z_IMAGE)).inputs("sampler")
    assert (sampler["steps"], sampler["cfg"]) == (30, 3.5)


def test_flux_dev_is_guided_once_and_flux_schnell_by_cfg():
    dev, schnell = (build_graph(BASE, model_of(family)) for family in (FLUX_DEV, FLUX))
    assert dev.inputs("guidance")["guidance"] == 3.5
    assert dev.inputs("sampler")["cfg"] == 1.0
    assert dev.inputs("sampler")["positive"] == Link("guidance", 0)
    assert "guidance" not in schnell.titles
    assert schnell.inputs("sampler")["cfg"] == 3.5


# ---- what a family can't do ------------------------------------------------------------------


@pytest.mark.parametrize("family", [FLUX, QWEN_IMAGE, Z_IMAGE], ids=lambda family: family.name)
def test_what_a_family_lacks_is_left_out_and_disclosed(family: Family):
    job = replace(BASE, width=2048, height=2048, hires_fix=True, clip_skip=2, tiling=True)
    fitting, notes = fit(job, family)
    assert fitting == replace(job, hires_fix=False, clip_skip=1, tiling=False)
    assert [note.ref for note in notes] == [
        f"{part} left out: not with {family.name} models"
        for part in ("hires_fix", "clip_skip", "tiling")
    ]


@pytest.mark.parametrize(
    ("changes", "family", "told", "fitted"),
    [
        (
            {"scheduler": Scheduler.gits},
            FLUX,
            "scheduler simple was used: gits is not for flux_1 models",
            {"scheduler": Scheduler.simple},
        ),
        (
            {"sampler": SAMPLERS["dpmpp_3m_sde"], "scheduler": Scheduler.normal},
            SD1,
            "scheduler simple was used: dpmpp_3m_sde diverges with normal",
            {"scheduler": Scheduler.simple},
        ),
        (
            {"sampler": SAMPLERS["k_dpm_2_a"], "sampler_options": SamplerOptions(eta=7)},
            FLUX,
            "sampler_eta 1 was used: 7 is too much for flux_1 models",
            {"sampler_options": SamplerOptions(eta=1)},
        ),
        (
            {"flow_shift": 0.0},
            QWEN_IMAGE,
            "flow_shift 0.01 was used: less leaves no noise",
            {"flow_shift": 0.01},
        ),
        (
            {"flow_shift": 3.0},
            Z_IMAGE,
            "flow_shift left out: not with z_image_turbo models",
            {"flow_shift": None},
        ),
    ],
)
def test_what_would_be_no_picture_is_done_otherwise_and_disclosed(
    changes: dict[str, Any], family: Family, told: str, fitted: dict[str, Any]
):
    job = replace(BASE, **changes)
    served, notes = fit(job, family)
    assert [note.ref for note in notes] == [told]
    assert served == replace(job, **fitted)
    assert fit(served, family) == (served, ())


def test_a_negative_prompt_that_weighs_nothing_is_encoded_with_the_other_one():
    """It is the same text then; CFG++ reads it whatever the cfg scale is."""
    plain = replace(BASE, cfg=1.0)
    assert fit(plain, SD1) == (replace(plain, negative_prompt=BASE.prompt), ())
    guided = replace(plain, sampler=SAMPLERS["euler_cfg_pp"])
    assert fit(guided, SD1) == (guided, ())


def test_hires_fix_that_would_do_nothing_is_not_worth_a_note():
    assert fit(replace(BASE, hires_fix=True), FLUX)[1] == ()


def test_a_negative_prompt_that_a_distilled_model_ignores_is_disclosed():
    (note,) = fit(BASE, FLUX_DEV)[1]
    assert note.ref == "negative prompt left out: flux_dev models have none"
    assert fit(BASE, FLUX)[1] == ()


@pytest.mark.parametrize(
    ("job", "family", "told"),
    [
        (REMIX, SDXL, "remix with stable_diffusion_xl"),
        (replace(BASE, transparent=CLEAR), SD2, "transparent with stable diffusion 2"),
        (
            replace(BASE, qr_code=QrCode(text="a", model=Path("a"))),
            CASCADE,
            "workflow qr_code with stable_cascade",
        ),
    ],
)
def test_what_would_be_another_picture_is_refused(job: GenerationParams, family: Family, told: str):
    with pytest.raises(NotServed, match=told):
        build_graph(job, model_of(family))


def test_what_opacity_makes_needless_is_left_out_and_disclosed():
    strip = PostProcessor("strip_background", ProcessorKind.background, Path("u2net"))
    enlarge = PostProcessor("RealESRGAN_x4plus", ProcessorKind.upscaler, Path("up"))
    job = replace(BASE, transparent=CLEAR, post_processing=(enlarge, strip))
    fitting, notes = fit(job, SD1)
    assert fitting.post_processing == (enlarge,)
    told = "strip_background left out: a transparent picture has no background"
    assert [note.ref for note in notes] == [told]
    fitting, notes = fit(replace(job, return_control_map=True), SD1)
    assert fitting.transparent is None
    assert fitting.post_processing == (enlarge, strip)
    told = "transparent left out: not with return_control_map"
    assert [note.ref for note in notes] == [told]


def test_a_qr_code_starts_from_the_code_alone():
    job = replace(JOBS["large image"], qr_code=QrCode(text="a", model=Path("a")))
    fitting, notes = fit(job, SDXL)
    assert fitting.source == TextOnly()
    assert not fitting.hires_fix
    assert [note.ref for note in notes] == [
        "source_image left out: not with the workflow qr_code",
        "hires_fix left out: not with the workflow qr_code",
    ]


def test_beside_a_qr_code_neither_a_control_type_nor_its_map_is_made():
    control = Control(type=ControlType.canny, image=SOURCE, model=Path("a"))
    code = QrCode(text="a", model=Path("a"))
    job = replace(BASE, qr_code=code, control=control, return_control_map=True)
    fitting, notes = fit(job, SD1)
    assert [note.ref for note in notes] == ["control_type left out: not with the workflow qr_code"]
    assert fitting == fit(replace(BASE, qr_code=code), SD1)[0]
    assert "qr_code" in build_graph(job, model_of(SD1)).titles


# ---- loading ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_a_vae_alone_in_a_file_is_loaded(tmp_path: Path):
    path = _demo_vae(tmp_path)
    vae = load(ModelKey("vae", path))
    assert vae.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 64, 64, 3)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "key",
    [
        ModelKey("vae", Path("a")),
        ModelKey("diffusion_model", Path("a")),
        ModelKey("text_encoder", Path("a"), "qwen_image"),
        ModelKey("clip_vision", Path("a")),
    ],
    ids=lambda key: key.kind,
)
def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path: Path, key: ModelKey):
    path = tmp_path / "other.safetensors"
    save_file({"something": torch.zeros(4)}, path)
    with pytest.raises(ModelBroken, match=r"other\.safetensors"):
        load(replace(key, path=path))


@pytest.mark.usefixtures("engine")
def test_a_checkpoint_without_image_encoder_can_not_remix(checkpoint: Path):
    with pytest.raises(ModelBroken, match="has no image encoder"):
        load(ModelKey("clip_vision", checkpoint))


def _demo_vae(folder: Path) -> Path:
    weights = load_file(TRAINED)
    path = folder / "vae.safetensors"
    save_file({k.removeprefix("vae."): v for k, v in weights.items() if k.startswith("vae.")}, path)
    return path

"""The workflow qr_code: a picture that a QR code hides in."""

from __future__ import annotations

from hordelib.graph import Graph, Link
from hordelib.graphs.stages.sampling import set_sampling
from hordelib.job.families import Family
from hordelib.job.params import GenerationParams, QrCode

LAYERS = ("code", "data_modules", "function_modules", "function_mask")  # DreamerQrCode's outputs
FIRST_SHARE = 0.44  # of the steps, for what is under the modules: 11 of the engine's usual 25
MOST_STRENGTH = 10.0  # of ComfyUI's ControlNets
_CONTROLS = ("data_control", "function_control", "code_control")
_SAMPLERS = ("data_sampler", "function_sampler", "sampler")


def hide_qr_code(graph: Graph, params: GenerationParams, code: QrCode, family: Family) -> None:
    """Draw the code in place of the spine's blank layers, and set all three samplers.

    The data's and the corners' modules are begun apart, each with its own prompt, and finished as
    one picture. Both parts have at least one step, whatever the job's number of steps is.
    """
    graph.set("function_prompt", text=code.function_layer_prompt or params.prompt)
    _name_control_net(graph, code, family.model)
    _draw(graph, params, code)
    for latent in ("data_latent", "function_latent"):
        graph.insert(
            Link(latent, 0),
            f"{latent}s",
            "RepeatLatentBatch",
            reads="samples",
            amount=params.images,
        )
    steps = max(2, params.steps)
    first = min(max(1, round(FIRST_SHARE * steps)), steps - 1)
    for title in _SAMPLERS:
        set_sampling(graph, title, params, family)
        graph.set(title, noise_seed=params.seed, steps=steps)
    graph.set("data_sampler", end_at_step=first)
    graph.set("function_sampler", start_at_step=min(1, first - 1), end_at_step=first)
    graph.set("sampler", start_at_step=first)

    for title in _CONTROLS:
        strength = graph.inputs(title)["strength"] * code.strength
        graph.set(title, strength=min(strength, MOST_STRENGTH))


def _name_control_net(graph: Graph, code: QrCode, model: Link) -> None:
    graph.remove("control_net")
    graph.add(
        "control_net",
        "DreamerControlNet",
        model=model,
        control_net_name=str(code.model),
        base="",
    )


def _draw(graph: Graph, params: GenerationParams, code: QrCode) -> None:
    graph.add(
        "qr_code",
        "DreamerQrCode",
        text=code.text,
        protocol=code.protocol,
        module_drawer=code.module_drawer,
        x_offset=-1 if code.x_offset is None else code.x_offset,
        y_offset=-1 if code.y_offset is None else code.y_offset,
        border=code.border,
        width=params.width,
        height=params.height,
    )
    for slot, title in enumerate(LAYERS):
        for reader, name in list(graph.readers(Link(title, 0))):
            graph.set(reader, **{name: Link("qr_code", slot)})
        graph.remove(title)

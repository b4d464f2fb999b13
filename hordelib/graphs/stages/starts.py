"""What a job starts from: a picture, one with a mask, or one and an instruction."""

from __future__ import annotations

from hordelib.errors import InvalidParams
from hordelib.graph import Graph, Link
from hordelib.job.images import SourceImage
from hordelib.job.params import FromImage, GenerationParams, Inpaint

SOURCE_PIXELS = Link("source_scaled", 0)
PICTURE = Link("decode", 0)


def start_from_source(
    graph: Graph, params: GenerationParams, size: tuple[int, int], vae: Link
) -> None:
    """Sample from the source's latent in place of an empty one, with the job's denoising strength.

    The source is stretched to `size` (width, height), as all of the horde's workers do, so that
    nothing of it is cut off.
    """
    match params.source:
        case FromImage(image):
            _encode(graph, params, image, size, vae)
        case Inpaint(image, mask):
            _encode(graph, params, image, size, vae)
            repaint(graph, mask, params.images)
        case _:
            pass


def add_image(graph: Graph, title: str, image: SourceImage) -> Link:
    """A node that gives the job's image of this name; the link to its pixels."""
    return Link(graph.add(title, "DreamerImage", name=title, digest=image.digest), 0)


def add_scaled(graph: Graph, title: str, pixels: Link, size: tuple[int, int]) -> Link:
    """The pixels stretched to `size` (width, height)."""
    graph.add(
        title,
        "ImageScale",
        image=pixels,
        upscale_method="lanczos",
        width=size[0],
        height=size[1],
        crop="disabled",
    )
    return Link(title, 0)


def _encode(
    graph: Graph, params: GenerationParams, image: SourceImage, size: tuple[int, int], vae: Link
) -> None:
    pixels = add_scaled(graph, SOURCE_PIXELS.node, add_image(graph, "source", image), size)
    graph.add("source_latent", "VAEEncode", pixels=pixels, vae=vae)
    graph.remove("latent")
    graph.add("latent", "RepeatLatentBatch", samples=Link("source_latent", 0), amount=params.images)
    graph.set("sampler", denoise=params.denoise)


def repaint(graph: Graph, mask: SourceImage, images: int) -> None:
    """Sample only where the mask is white, and put the source's own pixels back elsewhere.

    The mask works on latent pixels of 8 x 8, and the VAE changes what passes it: without the second
    step, the picture would differ from the source everywhere.
    """
    add_image(graph, "mask", mask)
    white = Link("mask", 1)
    graph.insert(
        Link("source_latent", 0), "masked", "SetLatentNoiseMask", reads="samples", mask=white
    )
    graph.add("kept", "RepeatImageBatch", image=SOURCE_PIXELS, amount=images)
    graph.insert(
        PICTURE,
        "composite",
        "ImageCompositeMasked",
        reads="source",
        destination=Link("kept", 0),
        x=0,
        y=0,
        resize_source=False,
        mask=white,
    )


MASK = Link("mask", 1)


def show_mask(graph: Graph, vae: Link) -> None:
    """Tell an inpainting model what to fill in; what is sampled stays as for ordinary models."""
    prompts = {name: graph.inputs("sampler")[name] for name in ("positive", "negative")}
    graph.add(
        "shown_mask",
        "InpaintModelConditioning",
        pixels=SOURCE_PIXELS,
        mask=MASK,
        vae=vae,
        noise_mask=False,
        **prompts,
    )
    graph.set("sampler", positive=Link("shown_mask", 0), negative=Link("shown_mask", 1))


def change_as_told(graph: Graph, vae: Link) -> None:
    """Show an Instruct-pix2pix UNet the source's latent beside the one that it samples.

    The source reaches both prompts, so that one cfg scale, the job's, says how far the picture
    follows the prompt (ComfyUI's own way; the paper's second scale, for the source, is its 1).
    Denoising strength means what it does elsewhere: at 1 the sampled latent starts from noise, and
    the picture knows the source only by what the UNet is shown of it.
    """
    prompts = {name: graph.inputs("sampler")[name] for name in ("positive", "negative")}
    graph.add("instruct", "InstructPixToPixConditioning", pixels=SOURCE_PIXELS, vae=vae, **prompts)
    graph.set("sampler", positive=Link("instruct", 0), negative=Link("instruct", 1))


def show_source(params: GenerationParams) -> Graph:
    """The graph whose picture is the source itself, for post-processing alone."""
    if not isinstance(params.source, FromImage):
        raise InvalidParams("keep_source", True, "a source image")
    graph = Graph()
    picture = add_image(graph, "source", params.source.image)
    graph.add("output", "SaveImage", images=picture, filename_prefix="dreamer")
    return graph

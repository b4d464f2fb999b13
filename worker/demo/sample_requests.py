"""What the demo's client asks for: a handful of pictures, or one for each thing a job can ask."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from hordelib.demo_model import EMBEDDING_FILE_NAME, LORA_FILE_NAME
from hordelib.demo_model.shapes import Scene, draw
from hordelib.job.control_types import CONTROL_TYPES, ControlType

MODEL = "Dreamer Demo"
INPAINTING_MODEL = "Dreamer Demo Inpainting"
PIX2PIX_MODEL = "Dreamer Demo pix2pix"
CENSORED_WORD = "spider"  # the demo's owner has it on his censorlist
USUAL: Mapping[str, object] = MappingProxyType(
    {
        "width": 64,
        "height": 64,
        "sampler_name": "k_euler",
        "karras": False,
        "steps": 15,
        "cfg_scale": 4.0,
    }
)


@dataclass(frozen=True, slots=True)
class Wish:
    """One request. `params` are the horde's, over the usual ones; `sources` its pictures by key.

    `label` says what the request is there to show.
    """

    prompt: str
    params: Mapping[str, object]
    label: str = ""
    sources: Mapping[str, Image.Image] = field(default_factory=dict[str, Image.Image])
    processing: str = "img2img"
    model: str = MODEL

    @property
    def images(self) -> int:
        count = self.params.get("n", 1)
        assert isinstance(count, int)
        return count

    def body(self) -> dict[str, object]:
        """The body of POST generate/async."""
        body: dict[str, object] = {
            "prompt": self.prompt,
            "params": {**USUAL, **self.params},
            "models": [self.model],
            "r2": True,
        }
        if self.sources:
            body["source_processing"] = self.processing
        return body | {key: in_base64(image) for key, image in self.sources.items()}


def in_base64(image: Image.Image) -> str:
    """As PNG, for the body of a request."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


FEW = (
    Wish("a red circle on a blue background", {"seed": "1"}),
    Wish(
        "a large yellow star on a purple background",
        {"seed": "2", "sampler_name": "k_dpmpp_2m", "karras": True},
    ),
    Wish("a green heart on a white background", {"seed": "3", "sampler_name": "k_euler_a"}),
    Wish("an orange triangle on a cyan background", {"seed": "4", "width": 128, "height": 128}),
    Wish(
        "a pink diamond at the top on a black background",
        {"seed": "5", "sampler_name": "k_dpmpp_2m"},
    ),
    Wish(
        "a white cross on a green background",
        {"seed": "6", "sampler_name": "k_euler_a", "width": 128, "height": 128},
    ),
    Wish(
        "a blue ring on a yellow background",
        {"seed": "70", "n": 4, "sampler_name": "k_euler_a"},
    ),
)

# What no file of this project can show, for the page.
NOT_SHOWN = (
    "Not shown, because their weights are not part of this project: face fixers, background"
    " removal, the control types that need a network, remix, and models of other families."
    " docs/jobs.md says which files they need."
)

_CIRCLE = "a red circle on a blue background"
_STAR = Scene("star", "yellow", "purple", size="large")


def _right_half() -> Image.Image:
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((32, 0, 64, 64), fill=255)
    return mask


def _framed() -> Image.Image:
    """A small picture in the middle of a transparent canvas."""
    canvas = Image.new("RGBA", (128, 64))
    canvas.paste(draw(_STAR, 64), (32, 0))
    return canvas


def _outline() -> Image.Image:
    """White lines on black, as a control map has them."""
    drawn = draw(Scene("square", "white", "black", place="on the left"), 128).convert("L")
    edges = drawn.filter(ImageFilter.FIND_EDGES).point([255 * (value > 64) for value in range(256)])
    return edges.convert("RGB")


def _sketch() -> Image.Image:
    return ImageOps.invert(_outline())


# The horde calls files without their suffix.
_LORA, _EMBEDDING = (Path(name).stem for name in (LORA_FILE_NAME, EMBEDDING_FILE_NAME))
_LARGE = {"width": 128, "height": 128}
_SEEDS_2 = {"sampler_name": "seeds_2", "sampler_eta": 0.5, "sampler_solver_type": "phi_2"}

ALL = (
    *FEW,
    Wish(
        "a large yellow star on the right on a purple background",
        {"seed": "1", "tiling": True, "width": 128},
        "tiling: the right edge continues on the left",
    ),
    Wish(
        _CIRCLE,
        {"seed": "9", "width": 576, "height": 576, "hires_fix": True, "steps": 2},
        "hires fix: two passes (the demo model knows 64 to 128 pixels)",
    ),
    Wish(_CIRCLE, {"seed": "10", "clip_skip": 2}, "clip skip 2"),
    Wish(_CIRCLE, {"seed": "11", "sampler_name": "lcm", "cfg_scale": 1.5}, "sampler lcm"),
    Wish(
        _CIRCLE,
        {"seed": "112", "scheduler": "align_your_steps", **_SEEDS_2},
        "sampler seeds_2 with options, schedule align_your_steps",
    ),
    Wish(
        _CIRCLE,
        {"seed": "113", "sampler_name": "euler_cfg_pp", "cfg_scale": 1.5, "scheduler": "gits"},
        "sampler euler_cfg_pp, schedule gits",
    ),
    Wish(
        _CIRCLE + ", plain" * 150 + " ### blurry",
        {"seed": "12"},
        "a prompt of 300 tokens",
    ),
    Wish("a {red|green|cyan} {heart|ring} on a white background", {"seed": "13"}, "dynamic prompt"),
    Wish(
        "a star",
        {"seed": "14", "denoising_strength": 0.1, "cfg_scale": 1.0},
        "image to image: denoising strength 0.1",
        {"source_image": draw(_STAR, 64)},
    ),
    Wish(
        _CIRCLE,
        {"seed": "15"},
        "inpainting: the right half",
        {"source_image": draw(_STAR, 64), "source_mask": _right_half()},
        "inpainting",
    ),
    Wish(
        _STAR.caption,
        {"seed": "16", "width": 128},
        "outpainting: both sides",
        {"source_image": _framed()},
        "outpainting",
    ),
    Wish(
        _CIRCLE,
        {"seed": "17"},
        "an inpainting model of 9 channels",
        {"source_image": draw(_STAR, 64), "source_mask": _right_half()},
        "inpainting",
        INPAINTING_MODEL,
    ),
    Wish(
        _CIRCLE,
        {"seed": "171", "denoising_strength": 0.9},
        "instruct-pix2pix: the prompt says what to change",
        {"source_image": draw(_STAR, 64)},
        model=PIX2PIX_MODEL,
    ),
    Wish(
        "a yellow square on a purple background",
        {"seed": "18", "control_type": "canny", **_LARGE},
        "ControlNet: canny",
        {"source_image": draw(Scene("square", "red", "white", place="on the left"), 128)},
    ),
    Wish(
        "a yellow square on a purple background",
        {"seed": "19", "control_type": "scribble", **_LARGE},
        "ControlNet: scribble",
        {"source_image": _sketch()},
    ),
    Wish(
        "a yellow square on a purple background",
        {"seed": "20", "control_type": "canny", "image_is_control": True, **_LARGE},
        "ControlNet: the image is the control map",
        {"source_image": _outline()},
    ),
    Wish(
        "a yellow square on a purple background",
        {"seed": "21", "control_type": "canny", "return_control_map": True, **_LARGE},
        "ControlNet: the control map itself",
        {"source_image": draw(Scene("square", "red", "white", place="on the left"), 128)},
    ),
    *(
        Wish(
            "no picture: the control map alone",
            {"seed": "27", "control_type": control, "return_control_map": True, **_LARGE},
            f"control map: {control}",
            {"source_image": draw(_STAR, 128)},
        )
        for control in ControlType
        if not CONTROL_TYPES[control].weights
    ),
    Wish(_CIRCLE, {"seed": "22", "loras": [{"name": _LORA}]}, "LoRA: swaps red and blue"),
    Wish(
        "a circle on a blue background",
        {"seed": "23", "tis": [{"name": _EMBEDDING, "inject_ti": "prompt"}]},
        "textual inversion",
    ),
    Wish(
        "a green heart on a white background",
        {"seed": "24", "post_processing": ["RealESRGAN_x4plus"]},
        "post-processing: an upscaler",
    ),
    Wish(
        "a yellow square on a purple background",
        {
            "seed": "26",
            "width": 192,
            "height": 192,
            "steps": 8,
            "workflow": "qr_code",
            "extra_texts": [{"reference": "qr_code", "text": "AI"}],
        },
        "a QR code's pattern (too small a model for one that can be read)",
    ),
    Wish(
        "a red ring on a white background",
        {"seed": "3", "transparent": True},
        "a transparent picture (this model's decoder takes white for nothing)",
    ),
    Wish(f"{_CIRCLE}, {CENSORED_WORD}", {"seed": "25"}, "censored: a word of the censorlist"),
)

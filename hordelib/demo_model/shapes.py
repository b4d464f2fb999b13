"""The demo model's world: one coloured shape on a plain background, and its caption."""

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (35, 70, 220),
    "yellow": (245, 220, 40),
    "orange": (245, 140, 25),
    "purple": (135, 45, 180),
    "pink": (250, 135, 190),
    "cyan": (50, 200, 215),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "brown": (125, 75, 35),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart")
PLACES = {  # centre of the shape, as a fraction of the picture
    "": (0.5, 0.5),
    "in the center": (0.5, 0.5),
    "on the left": (0.3, 0.5),
    "on the right": (0.7, 0.5),
    "at the top": (0.5, 0.3),
    "at the bottom": (0.5, 0.7),
}
SIZES = {"": 0.30, "small": 0.17, "large": 0.40}  # radius, as a fraction of the picture
OVERSAMPLING = 3


@dataclass(frozen=True)
class Scene:
    shape: str
    colour: str
    background: str
    place: str = ""
    size: str = ""

    @property
    def caption(self) -> str:
        thing = f"a {self.size} {self.colour} {self.shape} {self.place}"
        return " ".join(f"{thing} on a {self.background} background".split())


def draw(scene: Scene, pixels: int) -> Image.Image:
    """The scene as the model was taught to draw it: an RGB picture of pixels x pixels."""
    x, y = PLACES[scene.place]
    radius = SIZES[scene.size]
    if scene.place:  # keep a big shape inside the picture
        margin = radius * 0.95
        x, y = min(max(x, margin), 1 - margin), min(max(y, margin), 1 - margin)
    side = pixels * OVERSAMPLING
    picture = Image.new("RGB", (side, side), COLOURS[scene.background])
    _paint(ImageDraw.Draw(picture), scene, x * side, y * side, radius * side)
    return picture.resize((pixels, pixels), Image.Resampling.LANCZOS)


def _paint(pen: ImageDraw.ImageDraw, scene: Scene, x: float, y: float, r: float) -> None:
    colour = COLOURS[scene.colour]
    match scene.shape:
        case "circle":
            pen.ellipse(_box(x, y, r, r), fill=colour)
        case "square":
            pen.rectangle(_box(x, y, r * 0.86, r * 0.86), fill=colour)
        case "ring":
            pen.ellipse(_box(x, y, r, r), fill=colour)
            pen.ellipse(_box(x, y, r * 0.55, r * 0.55), fill=COLOURS[scene.background])
        case "cross":
            pen.rectangle(_box(x, y, r, r * 0.34), fill=colour)
            pen.rectangle(_box(x, y, r * 0.34, r), fill=colour)
        case _:
            pen.polygon([(x + r * dx, y + r * dy) for dx, dy in _outline(scene.shape)], fill=colour)


def _box(x: float, y: float, half_width: float, half_height: float) -> list[float]:
    return [x - half_width, y - half_height, x + half_width, y + half_height]


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners around (0, 0) for radius 1; y grows downwards."""
    if shape == "heart":
        turns = [2 * math.pi * i / 80 for i in range(80)]
        return [
            (
                16 * math.sin(t) ** 3 / 16.5,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
                / 16.5,
            )
            for t in turns
        ]
    corners = {
        "triangle": [(-90 + 120 * i, 1.0) for i in range(3)],
        "diamond": [(90 * i, 1.0 if i % 2 else 0.72) for i in range(4)],
        "star": [(-90 + 36 * i, 1.0 if i % 2 == 0 else 0.42) for i in range(10)],
    }[shape]
    return [(k * math.cos(math.radians(a)), k * math.sin(math.radians(a))) for a, k in corners]

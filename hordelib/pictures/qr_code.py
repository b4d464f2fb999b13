"""QR codes as the horde's workflow qr_code needs them: in layers, placed on a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import segno
from PIL import Image, ImageDraw
from segno import consts

from hordelib.errors import InvalidParams
from hordelib.job.notes import GenMetadata, MetadataType, MetadataValue
from hordelib.job.params import SIDE_STEP, QrCode

GREY, WHITE, BLACK = 128, 255, 0  # grey tells the QR control nets nothing
MODULE_SIDES = (16, 8)  # pixels; the larger one that fits. A latent pixel is 8
MOST_BYTES = 1273  # of data that the largest code with the highest error correction holds
GRID = 8  # where a code may start, so that its modules are whole latent pixels
_FUNCTION_PATTERNS = {
    *(consts.TYPE_FINDER_PATTERN_DARK, consts.TYPE_FINDER_PATTERN_LIGHT, consts.TYPE_SEPARATOR),
    *(consts.TYPE_ALIGNMENT_PATTERN_DARK, consts.TYPE_ALIGNMENT_PATTERN_LIGHT),
    *(consts.TYPE_TIMING_DARK, consts.TYPE_TIMING_LIGHT),
}


@dataclass(frozen=True, slots=True)
class Module:
    """One square of a code."""

    row: int
    column: int
    is_dark: bool
    is_function: bool  # of the patterns by which a reader finds its way, not of the data


@dataclass(frozen=True, slots=True)
class Layers:
    """Pictures (mode L) of the job's size: the code, its parts, and where its patterns are."""

    code: Image.Image  # on grey
    data: Image.Image  # on grey
    function: Image.Image  # on white
    function_mask: Image.Image  # white where the patterns are, black elsewhere


def draw_layers(code: QrCode, width: int, height: int) -> Layers:
    """Draw the code onto pictures of width x height pixels.

    Error correction is the highest, as half of the code ends up as something else. Raises
    InvalidParams for a text whose code would not fit.
    """
    modules = tuple(_modules(address(code)))
    count = max(module.row for module in modules) + 1 + 2 * code.border
    side = _module_side(code, count, min(width, height))
    corner = (
        _start(code.x_offset, width, count * side),
        _start(code.y_offset, height, count * side),
    )
    drawing = _Drawing((width, height), corner, side, code.border, DRAWERS[code.module_drawer])
    data = [module for module in modules if not module.is_function]
    function = [module for module in modules if module.is_function]
    return Layers(
        code=drawing.of(modules, GREY, count),
        data=drawing.of(data, GREY, count, function),
        function=drawing.of(function, WHITE, 0),
        function_mask=drawing.mask_of(function),
    )


def address(code: QrCode) -> str:
    """What a reader of the code sees."""
    protocol = code.protocol.lower()
    return code.text if protocol == "none" else f"{protocol}://{code.text}"


def insist_on_room(code: QrCode, width: int, height: int) -> None:
    """Raise InvalidParams for a text whose code would not fit into a picture of this size."""
    modules = len(_encode(address(code)).matrix)
    _module_side(code, modules + 2 * code.border, min(width, height))


def _encode(text: str) -> segno.QRCode:
    """Raises InvalidParams, before anything is encoded where the text's length alone tells."""
    try:
        if len(text) > 3 * MOST_BYTES:  # digits alone are packed, three of them into 10 bits
            raise segno.DataOverflowError("too long")
        return segno.make_qr(text, error="h", boost_error=False)
    except segno.DataOverflowError as error:
        raise InvalidParams("extra_texts", text[:40], "a text that a QR code can hold") from error


def _modules(text: str) -> Iterator[Module]:
    matrix = _encode(text).matrix_iter(border=0, verbose=True)
    for row, kinds in enumerate(matrix):
        for column, kind in enumerate(kinds):
            yield Module(row, column, kind >> 8 > 0, kind in _FUNCTION_PATTERNS)


def _module_side(code: QrCode, count: int, room: int) -> int:
    for side in MODULE_SIDES:
        if count * side <= room:
            return side
    least = -(-count * MODULE_SIDES[-1] // SIDE_STEP) * SIDE_STEP
    raise InvalidParams(
        "extra_texts",
        code.text[:40],
        f"a text whose QR code fits into {room} pixels; this one needs {least} x {least}",
    )


def _start(wanted: int | None, room: int, side: int) -> int:
    """Where the code starts on an axis, inside the picture; the middle where nothing is wanted."""
    last = room - side
    start = last // 2 if wanted is None else min(max(wanted, 0), last)
    return start // GRID * GRID


Draw = Callable[[ImageDraw.ImageDraw, int, int, int], None]


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Where and how modules are drawn."""

    size: tuple[int, int]
    corner: tuple[int, int]
    side: int
    border: int
    draw_data: Draw

    def of(
        self,
        modules: tuple[Module, ...] | list[Module],
        ground: int,
        white_count: int,
        grey: list[Module] | tuple[()] = (),
    ) -> Image.Image:
        """`modules` on a white square of white_count modules; those of `grey` tell nothing."""
        picture = Image.new("L", self.size, ground)
        canvas = ImageDraw.Draw(picture)
        if white_count:
            _square(canvas, *self.corner, white_count * self.side, WHITE)
        for module in grey:
            _square(canvas, *self._place(module), self.side, GREY)
        for module in modules:
            if module.is_dark:
                draw = _square if module.is_function else self.draw_data
                draw(canvas, *self._place(module), self.side)
        return picture

    def mask_of(self, modules: list[Module]) -> Image.Image:
        picture = Image.new("L", self.size, BLACK)
        canvas = ImageDraw.Draw(picture)
        for module in modules:
            _square(canvas, *self._place(module), self.side, WHITE)
        return picture

    def _place(self, module: Module) -> tuple[int, int]:
        x, y = self.corner
        across, down = module.column + self.border, module.row + self.border
        return x + across * self.side, y + down * self.side


# ---- drawers: a dark module whose left upper corner is (x, y) --------------------------------


def _square(canvas: ImageDraw.ImageDraw, x: int, y: int, side: int, value: int = BLACK) -> None:
    canvas.rectangle((x, y, x + side - 1, y + side - 1), fill=value)


def _gapped_square(canvas: ImageDraw.ImageDraw, x: int, y: int, side: int) -> None:
    gap = side // 8
    _square(canvas, x + gap, y + gap, side - 2 * gap)


def _circle(canvas: ImageDraw.ImageDraw, x: int, y: int, side: int) -> None:
    canvas.ellipse((x, y, x + side - 1, y + side - 1), fill=BLACK)


def _rounded(canvas: ImageDraw.ImageDraw, x: int, y: int, side: int) -> None:
    canvas.rounded_rectangle((x, y, x + side - 1, y + side - 1), side // 4, fill=BLACK)


def _vertical_bar(canvas: ImageDraw.ImageDraw, x: int, y: int, side: int) -> None:
    gap = side // 8
    canvas.rectangle((x + gap, y, x + side - 1 - gap, y + side - 1), fill=BLACK)


def _horizontal_bar(canvas: ImageDraw.ImageDraw, x: int, y: int, side: int) -> None:
    gap = side // 8
    canvas.rectangle((x, y + gap, x + side - 1, y + side - 1 - gap), fill=BLACK)


DRAWERS: dict[str, Draw] = {
    "square": _square,
    "gapped square": _gapped_square,
    "circle": _circle,
    "rounded": _rounded,
    "vertical bars": _vertical_bar,
    "horizontal bars": _horizontal_bar,
}


# ---- what the horde sends --------------------------------------------------------------------

TEXT_REFERENCES = ("qr_code", "qr_text")
PROTOCOLS = ("none", "http", "https")
MAX_BORDER, MAX_OFFSET = 16, 8192


def read_qr_code(
    texts: Iterable[tuple[str, str]], model: Path
) -> tuple[QrCode, tuple[GenMetadata, ...]]:
    """The code that a job's extra_texts (reference, text) ask for, and notes of what was ignored.

    `model` is the file of the QR ControlNet. Raises InvalidParams where there is no text to encode.
    """
    given = {reference: text.strip() for reference, text in texts}
    text = next((given[name] for name in TEXT_REFERENCES if given.get(name)), "")
    if not text:
        raise InvalidParams("extra_texts", "", "a text with the reference 'qr_code'")
    code, notes = QrCode(text=text, model=model), list[GenMetadata]()
    for reference, (field, read) in _SETTINGS.items():
        value = read(given[reference]) if given.get(reference) else None
        if value is not None:
            code = replace(code, **{field: value})
        elif given.get(reference):
            told = f"{reference} {given[reference][:40]!r} is unknown: the usual one was used"
            notes.append(GenMetadata(MetadataType.INFORMATION, MetadataValue.SEE_REF, told))
    return code, tuple(notes)


def _one_of(names: Iterable[str]) -> Callable[[str], str | None]:
    known = tuple(names)
    return lambda text: text.lower() if text.lower() in known else None


def _number_up_to(most: int) -> Callable[[str], int | None]:
    """A whole number; below 0 is 0, as nothing can start outside of the picture."""

    def read(text: str) -> int | None:
        digits = text.removeprefix("-")
        if not (digits.isdecimal() and digits.isascii() and len(digits) <= len(str(most))):
            return None
        return min(max(int(text), 0), most)

    return read


_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "protocol": ("protocol", _one_of(PROTOCOLS)),
    "module_drawer": ("module_drawer", _one_of(DRAWERS)),
    "function_layer_prompt": ("function_layer_prompt", str),
    "x_offset": ("x_offset", _number_up_to(MAX_OFFSET)),
    "y_offset": ("y_offset", _number_up_to(MAX_OFFSET)),
    "qr_border": ("border", _number_up_to(MAX_BORDER)),
}


# ---- files -----------------------------------------------------------------------------------

# The control nets by the horde's baseline, as its model reference names them.
CONTROL_NETS = {
    "stable diffusion 1": "control_v1p_sd15_qrcode_monster_v2",
    "stable_diffusion_xl": "control_v1p_sdxl_qrcode_monster",
}


def control_net_file(models: Path, baseline: str) -> Path | None:
    """Where the QR ControlNet is looked for below the models' folder; None where there is none."""
    name = CONTROL_NETS.get(baseline)
    return models / "controlnet" / f"{name}.safetensors" if name else None

"""Hires fix in numbers: a first pass near the model's own size, a second one at the wanted size."""

from __future__ import annotations

from math import gcd

LATENT_STEP = 8  # pixels per latent pixel
EXACT_RANGE = 0.125  # how far the first pass may be from the native side to keep the ratio exactly


def needs_two_passes(width: int, height: int, native_side: int) -> bool:
    """Whether hires fix does anything: both sides are larger than what the model was trained on."""
    return min(width, height) > native_side


def first_pass_size(width: int, height: int, native_side: int) -> tuple[int, int]:
    """Size in pixels of the first pass: the shorter side about `native_side`, the same shape.

    The shape is kept exactly where a size within an eighth of `native_side` allows it, else to the
    nearest 8 pixels; a shape that changed would be stretched by the second pass.
    """
    shape = gcd(width, height)
    across, down = width // shape * LATENT_STEP, height // shape * LATENT_STEP
    count = max(1, round(native_side / min(across, down)))
    exact = across * count, down * count
    if abs(min(exact) - native_side) <= native_side * EXACT_RANGE:
        return exact
    scale = native_side / min(width, height)
    return _to_step(width * scale), _to_step(height * scale)


def second_pass_steps(width: int, height: int, steps: int, denoise: float, native_side: int) -> int:
    """Steps of the second pass: the horde's engine's formula, fewer for less denoising.

    At most `steps`, and at least 6 where `steps` allows.
    """
    enlargement = (width * height / native_side**2) / (3 * 512 / native_side)
    second = round(3 + (steps - 3) * denoise**2)
    second = round(second * 2**enlargement / 2.25)
    if steps <= 18:
        second += 3
    return max(min(second, steps), min(6, steps))


def _to_step(pixels: float) -> int:
    return round(pixels / LATENT_STEP) * LATENT_STEP

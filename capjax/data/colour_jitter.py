"""Colour jitter, greyscale and blur: what contrastive training does to colours.

Ranges are SimCLR's (Chen et al. 2020, arXiv 2002.05709, appendix A), steps those of torchvision's
`ColorJitter`: brightness, contrast and saturation are blended by a factor from [1 - x, 1 + x], the
hue is turned by a share of the full circle from [-h, h], in random order. The hue is turned in
Pillow's 8-bit HSV, so in 256 steps. Captions name colours: keep `hue` at 0 where they are trained
on.

H, W: height and width of a picture. Every function takes and gives uint8 [H,W,3]; what is random
takes a `numpy.random.Generator`. Raises `UserError` for a range that makes no sense.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from capjax.errors import UserError


def colour_jitter(
    image: np.ndarray,
    rng: np.random.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
) -> np.ndarray:
    """uint8 [H,W,3] with random brightness, contrast, saturation and hue; 0 leaves one alone."""
    ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in ranges.items():
        if value < 0:
            raise UserError(f"{name}={value} of the colour jitter must not be negative")
    if not 0 <= hue <= 0.5:
        raise UserError(f"hue={hue} of the colour jitter is not between 0 and 0.5, half a circle")
    # Everything is drawn, so that one range does not move the draws of the others.
    factors = [rng.uniform(max(0.0, 1 - value), 1 + value) for value in ranges.values()]
    turn = rng.uniform(-hue, hue)
    picture = Image.fromarray(image)
    for step in rng.permutation(4):
        if step == 3:
            picture = turn_hue(picture, turn)
        else:
            picture = _ENHANCERS[step](picture).enhance(factors[step])
    return np.array(picture)


_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    """An RGB picture with every hue turned by `turn` of the circle (1/3: red becomes green)."""
    steps = round(turn * 256) % 256
    if not steps:
        return picture  # the way to HSV and back is not exact
    hsv = np.array(picture.convert("HSV"))
    hsv[..., 0] += np.uint8(steps)  # wraps around, as hues do
    return Image.fromarray(hsv, "HSV").convert("RGB")


def greyscale(image: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] with the luma of ITU-R BT.601 in all three channels."""
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def gaussian_blur(
    image: np.ndarray, rng: np.random.Generator, sigma: tuple[float, float] = (0.1, 2.0)
) -> np.ndarray:
    """uint8 [H,W,3] blurred with a standard deviation drawn from `sigma`, in pixels.

    Pillow's blur: three boxes in a row, which is a Gaussian to within a few percent.
    """
    low, high = sigma
    if not 0 <= low <= high:
        raise UserError(f"sigma={sigma} of the blur must be two numbers, the smaller one first")
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(low, high))))

"""Pictures from bytes to uint8 arrays, and what training does to them; resizing: `data.resize`.

H, W: height and width of a picture. S: the side of the square that a model takes.

Pillow's antialiased filters throughout: the published numbers of CLIP-like models were made with
them, and resizers that do not antialias move them. Every function takes and gives uint8 [H,W,3] in
RGB; what is random takes a `numpy.random.Generator`.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from capjax.data.resize import MAX_ASPECT, RESIZE_RULES, resize, to_shape

__all__ = [
    "FORMATS",
    "MAX_ASPECT",
    "MAX_PIXELS",
    "RESIZE_RULES",
    "decode",
    "flip",
    "random_resized_crop",
    "resize",
]

# Only these plugins are tried. Others can start programs (EPS) or parse formats that no caption
# data set holds.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
# A few kilobytes can claim to be gigapixels. 2**26 is 8,192 x 8,192, 192 MiB as RGB.
MAX_PIXELS = 2**26

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.3, tag Orientation: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes) -> np.ndarray:
    """Encoded bytes -> uint8 [H,W,3], upright, transparency laid on white.

    Greyscale, palette and CMYK become RGB; 16-bit greyscale is scaled to 8 bits; of an animation,
    the first frame counts.

    Raises `ValueError` with the reason where the bytes are no picture, are cut short, or claim more
    than `MAX_PIXELS`.
    """
    if not data:
        raise ValueError("cannot be decoded: it is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(f"cannot be decoded: it is none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise ValueError(f"cannot be decoded: it has more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # plugins raise what their parsing happens to meet in broken bytes
        raise ValueError(f"cannot be decoded: {error}") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"cannot be decoded: {width} x {height} is more than {MAX_PIXELS:,} pixels"
        )
    try:
        image.load()
        rgb = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"cannot be decoded: {error}") from None
    method = _UPRIGHT.get(_orientation(image))
    return np.array(rgb if method is None else rgb.transpose(method))


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A random part of uint8 [H,W,3], resized to uint8 [S,S,3] (Szegedy et al. 2015, section 6).

    `scale` bounds the part's share of the area, `ratio` its width / height (log-uniform). Where ten
    draws do not fit the picture, the largest central part whose aspect is allowed is taken.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h + 1))
            left = int(rng.integers(width - w + 1))
            break
    else:
        aspect = min(max(width / height, ratio[0]), ratio[1])
        w = max(1, min(width, round(height * aspect)))
        h = max(1, min(height, round(width / aspect)))
        top, left = (height - h) // 2, (width - w) // 2
    return to_shape(image[top : top + h, left : left + w], size, size)


def flip(image: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] mirrored left to right."""
    return np.ascontiguousarray(image[:, ::-1])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns 16-bit pictures white.
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or EXIF is damaged: the pixels are still good."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1

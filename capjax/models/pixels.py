"""From bytes to what an image tower reads: each published encoder has its own mean and deviation.

Pictures travel to the device as uint8 and are normalised there. Letters: B batch, S side in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Pixels(NamedTuple):
    """Mean and standard deviation of the red, green and blue of [0, 1]."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


HALF = Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # to [-1, 1]: SigLIP, ALIGN and our own towers
CLIP = Pixels((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ResNet, DeiT, DINOv2


def normalize(image: jax.Array, dtype: jnp.dtype, pixels: Pixels = HALF) -> jax.Array:
    """uint8 [B,S,S,3] -> (image / 255 - mean) / deviation in `dtype`."""
    if image.dtype != jnp.uint8:
        raise ValueError(f"pictures are given as uint8, not {image.dtype}")
    deviation = np.asarray(pixels.deviation, np.float32)
    shift = np.asarray(pixels.mean, np.float32) / deviation
    return (image.astype(jnp.float32) / (255 * deviation) - shift).astype(dtype)

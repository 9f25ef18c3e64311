"""Parameters of another size than published: positions at another resolution, new tokens.

Letters: N positions of a picture, h, w sides of a grid, D width, V vocabulary.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

# Rows of new tokens lie around the mean of all rows, so close that the model is as sure of the
# others as before (Hewitt 2021, "Initializing new word embeddings for pretrained language models").
NEW_ROW_SPREAD = 0.1


def fit(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """`value`, published for the parameter `path`, in `shape`; None if there is no way.

    Position embeddings of pictures are resampled, and vocabularies grow by new rows.
    """
    if path.endswith(("embedding/embedding", "head_bias")):
        return grow(value, shape, 0)
    if path.rsplit("/", 2)[-2:-1] == ["head"]:
        return grow(value, shape, len(shape) - 1)
    return fit_positions(path, value, shape)


def fit_positions(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """As `fit`, for the position embeddings of pictures alone."""
    *_, owner, name = ("", "", *path.split("/"))
    if name == "positions" and ("image" in path or "pool" in owner):
        return resample_positions(value, shape)
    return None


def resample_positions(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Positions [..,N,D] of a square grid, after a class token or not, on a grid of another size.

    Antialiased bicubic interpolation, as in OpenCLIP and timm. None if N is no such number.
    """
    old, new, width = value.size // shape[-1], math.prod(shape[:-1]), shape[-1]
    for extra in (0, 1):
        before, after = math.isqrt(old - extra), math.isqrt(new - extra)
        if before**2 + extra == old and after**2 + extra == new:
            break
    else:
        return None
    flat = np.asarray(value, np.float32).reshape(old, width)
    grid = flat[extra:].reshape(before, before, width)
    resized = jax.image.resize(jnp.asarray(grid), (after, after, width), "cubic", antialias=True)
    rows = np.asarray(resized).reshape(-1, width)
    return np.concatenate([flat[:extra], rows]).reshape(shape)


def grow(value: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray | None:
    """`value` with more rows along `axis`: drawn around the mean row. None if there are fewer."""
    rest = [n for i, n in enumerate(shape) if i != axis]
    if value.ndim != len(shape) or [n for i, n in enumerate(value.shape) if i != axis] != rest:
        return None
    missing = shape[axis] - value.shape[axis]
    if missing < 0:
        return None
    rows = np.moveaxis(np.asarray(value, np.float32), axis, 0)
    noise = np.random.default_rng(0).standard_normal((missing, *rows.shape[1:]), np.float32)
    new = rows.mean(0) + NEW_ROW_SPREAD * rows.std(0) * noise
    return np.moveaxis(np.concatenate([rows, new]), 0, axis)

"""Vision Transformer: picture -> patch tokens (Dosovitskiy et al. 2021, arXiv 2010.11929).

Letters: B batch, S side of the picture in pixels, P side of a patch, N = (S/P)^2 tokens, D width.
Position embeddings are learned and start at the 2-D sine-cosine values of Chen et al. 2021
(MoCo v3), which small data sets profit from; so they do from `stem="conv"`, strided convolutions in
place of one large patch projection (Xiao et al. 2021, arXiv 2106.14881).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax.models.transformer import BlockConfig, Stack


def sincos2d(rows: int, columns: int, width: int) -> np.ndarray:
    """2-D sine-cosine position embeddings: float32 [1, rows * columns, width]."""
    if width % 4:
        raise ValueError(f"2-D positions need a width divisible by 4, not {width}")
    frequency = 1.0 / 10_000 ** (np.arange(width // 4) / max(1, width // 4 - 1))
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1) * frequency
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], 1)[None].astype(np.float32)


def to_patches(image: jax.Array, patch: int) -> jax.Array:
    """[B,S,S,3] -> [B, (S/P)^2, P*P*3], row by row."""
    batch, height, width, channels = image.shape
    rows, columns = height // patch, width // patch
    grid = image.reshape(batch, rows, patch, columns, patch, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)


def normalize(image: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """uint8 [0, 255] -> [-1, 1] in `dtype`; pictures travel to the device as bytes."""
    if image.dtype != jnp.uint8:
        raise ValueError(f"pictures are given as uint8, not {image.dtype}")
    return (image.astype(jnp.float32) / 127.5 - 1.0).astype(dtype)


class ConvStem(nn.Module):
    """[B,S,S,3] -> [B, (S/P)^2, D] by 3x3 convolutions of stride 2, each twice as wide."""

    width: int
    patch_size: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        halvings = self.patch_size.bit_length() - 1
        if self.patch_size != 2**halvings:
            raise ValueError(f"stem='conv' needs a power of two, not patch_size={self.patch_size}")
        for level in range(halvings):
            features = max(self.width >> (halvings - level), 1)
            x = nn.Conv(features, (3, 3), strides=2, dtype=self.dtype, name=f"conv_{level}")(x)
            x = nn.gelu(nn.LayerNorm(dtype=self.dtype, name=f"norm_{level}")(x))
        return nn.Dense(self.width, dtype=self.dtype, name="out")(
            x.reshape(x.shape[0], -1, x.shape[-1])
        )


class ViT(nn.Module):
    """uint8 pictures [B,S,S,3] -> tokens [B,N,D] after the last LayerNorm."""

    layers: int
    config: BlockConfig
    image_size: int
    patch_size: int
    stem: str = "patch"
    remat: str = "none"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        if image.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"pictures of shape {image.shape[1:]} do not fit image_size={self.image_size}"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}"
            )
        c = self.config
        pixels = normalize(image, c.dtype)
        if self.stem == "conv":
            x = ConvStem(c.width, self.patch_size, c.dtype, name="stem")(pixels)
        elif self.stem == "patch":
            patches = to_patches(pixels, self.patch_size)
            x = nn.Dense(c.width, dtype=c.dtype, name="patch_embedding")(patches)
        else:
            raise ValueError(f"unknown stem {self.stem!r}: choose 'patch' or 'conv'")
        side = self.image_size // self.patch_size
        positions = self.param("positions", lambda _: jnp.asarray(sincos2d(side, side, c.width)))
        x = nn.Dropout(c.dropout)(x + positions.astype(c.dtype), deterministic=not train)
        return Stack(self.layers, c, remat=self.remat, name="stack")(x, train=train)

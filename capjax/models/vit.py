"""Vision Transformer: picture -> patch tokens (Dosovitskiy et al. 2021, arXiv 2010.11929).

Letters: B batch, S side of the picture in pixels, P side of a patch, N = (S/P)^2 tokens, D width.
Position embeddings are learned and start at the 2-D sine-cosine values of Chen et al. 2021
(MoCo v3), which small data sets profit from; so they do from `stem="conv"`, strided convolutions in
place of one large patch projection (Xiao et al. 2021, arXiv 2106.14881).

Published image encoders are this one with options: CLIP's has a class token, learned positions, a
patch projection without bias and a LayerNorm before the blocks (`class_token`, `positions`,
`patch_bias`, `pre_norm`); SigLIP's has learned positions.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError
from capjax.models.pixels import HALF, Pixels, normalize
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
    """uint8 pictures [B,S,S,3] -> tokens [B,N,D] after the last LayerNorm.

    With `class_token` there is one more, the first. `positions` is "sincos" (what they start at) or
    "learned" (from noise); both are trained.
    """

    layers: int
    config: BlockConfig
    image_size: int
    patch_size: int
    stem: str = "patch"
    remat: str = "none"
    pixels: Pixels = HALF
    positions: str = "sincos"
    patch_bias: bool = True
    class_token: bool = False
    pre_norm: bool = False

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        if image.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"pictures of shape {image.shape[1:]} do not fit image_size={self.image_size}"
            )
        if self.image_size % self.patch_size:
            raise UserError(
                f"patch_size={self.patch_size} does not divide image_size={self.image_size}: "
                "choose an image size that is a multiple of it"
            )
        c = self.config
        pixels = normalize(image, c.dtype, self.pixels)
        if self.stem == "conv":
            x = ConvStem(c.width, self.patch_size, c.dtype, name="stem")(pixels)
        elif self.stem == "patch":
            patches = to_patches(pixels, self.patch_size)
            x = nn.Dense(c.width, use_bias=self.patch_bias, dtype=c.dtype, name="patch_embedding")(
                patches
            )
        else:
            raise ValueError(f"unknown stem {self.stem!r}: choose 'patch' or 'conv'")
        noise = nn.initializers.normal(c.width**-0.5)
        if self.class_token:
            cls = self.param("cls", noise, (1, 1, c.width)).astype(c.dtype)
            x = jnp.concatenate([jnp.broadcast_to(cls, (len(x), 1, c.width)), x], 1)
        x = x + self._positions(noise).astype(c.dtype)
        if self.pre_norm:
            x = nn.LayerNorm(epsilon=c.epsilon, dtype=c.dtype, name="pre_norm")(x)
        x = nn.Dropout(c.dropout)(x, deterministic=not train)
        return Stack(self.layers, c, remat=self.remat, name="stack")(x, train=train)

    def _positions(self, noise: nn.initializers.Initializer) -> jax.Array:
        side, width = self.image_size // self.patch_size, self.config.width
        if self.positions == "learned":
            return self.param("positions", noise, (1, self.class_token + side * side, width))
        if self.positions != "sincos" or self.class_token:
            raise ValueError(
                f"positions={self.positions!r}: choose 'learned', or 'sincos' without a class token"
            )
        return self.param("positions", lambda _: jnp.asarray(sincos2d(side, side, width)))

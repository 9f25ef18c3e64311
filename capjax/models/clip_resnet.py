"""CLIP's modified ResNet (arXiv 2103.00020, section 2.4): picture -> one vector.

A stem of three convolutions and an average pool; bottlenecks that halve the map by average pooling
behind their 3x3 convolution (anti-aliasing) rather than by a stride; and, in place of the global
average, one layer of attention whose query is the mean over the map.

Letters: B batch, S side in pixels, W width of the stem, C channels, E embedding width,
h = S / 32 side of the last map, which is 32 W wide.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.models.attention import Attention
from capjax.models.batch_norm import BatchNorm
from capjax.models.pixels import CLIP, normalize

EXPANSION = 4  # of a bottleneck's width
REDUCTION = 32  # pixels a cell of the last map


class Layers(nn.Module):
    """The two layers that everything here is made of, numbered in the order of their names."""

    dtype: jnp.dtype

    def conv(self, name: str, features: int, kernel: int, stride: int = 1) -> nn.Conv:
        """A convolution without bias that keeps the size of the map, but for its stride."""
        padding = kernel // 2
        return nn.Conv(
            features, (kernel, kernel), stride, padding, use_bias=False, dtype=self.dtype, name=name
        )

    def norm(self, name: str, scale_init=nn.initializers.ones) -> BatchNorm:
        """Torch's BatchNorm, whose momentum of 0.1 is the share of the new."""
        return BatchNorm(1e-5, 0.9, dtype=self.dtype, scale_init=scale_init, name=name)


def halve(x: jax.Array, by: int = 2) -> jax.Array:
    """Average pooling over squares of this side."""
    return nn.avg_pool(x, (by, by), (by, by)) if by > 1 else x


class Bottleneck(Layers):
    """[B,h,w,C] -> [B,h/stride,w/stride,4 width]."""

    width: int = 64
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        features = EXPANSION * self.width
        y = nn.relu(self.norm("norm_1")(self.conv("conv_1", self.width, 1)(x), train))
        y = nn.relu(self.norm("norm_2")(self.conv("conv_2", self.width, 3)(y), train))
        y = self.conv("conv_3", features, 1)(halve(y, self.stride))
        # The block starts as the identity (CLIP's initialisation).
        y = self.norm("norm_3", nn.initializers.zeros)(y, train)
        if self.stride > 1 or x.shape[-1] != features:
            x = self.conv("shortcut_conv", features, 1)(halve(x, self.stride))
            x = self.norm("shortcut_norm")(x, train)
        return nn.relu(x + y)


class AttentionPool(nn.Module):
    """[B,h,w,C] -> [B,E]: the mean over the map attends to itself and to the map."""

    heads: int
    embedding_dim: int
    dtype: jnp.dtype
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, features = x.shape
        x = x.reshape(batch, height * width, features)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], 1)
        normal = nn.initializers.normal(features**-0.5)
        positions = self.param("positions", normal, (1 + height * width, features))
        x = x + positions.astype(self.dtype)
        attend = Attention(
            features,
            self.heads,
            self.dtype,
            self.attention,
            in_init=normal,
            out_init=normal,
            out_features=self.embedding_dim,
            name="attention",
        )
        return attend(x[:, :1], attend.project(x))[:, 0]


class ModifiedResNet(Layers):
    """uint8 pictures [B,S,S,3] -> [B,E]; not of unit length.

    `layers`: bottlenecks of each of the four stages.
    """

    layers: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    heads: int = 32
    embedding_dim: int = 1024
    image_size: int = 224
    attention: str = "xla"

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        if self.image_size % REDUCTION:
            raise UserError(
                f"image_size={self.image_size} is no multiple of {REDUCTION}, by which this ResNet "
                "divides it: choose one that is"
            )
        if image.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"pictures of shape {image.shape[1:]} do not fit image_size={self.image_size}"
            )
        x = normalize(image, self.dtype, CLIP)
        stem = ((self.width // 2, 2), (self.width // 2, 1), (self.width, 1))
        for i, (features, stride) in enumerate(stem, 1):
            x = self.conv(f"stem_conv_{i}", features, 3, stride)(x)
            x = nn.relu(self.norm(f"stem_norm_{i}")(x, train))
        x = halve(x)
        for stage, depth in enumerate(self.layers):
            for i in range(depth):
                x = Bottleneck(
                    self.dtype,
                    width=self.width << stage,
                    stride=2 if stage and not i else 1,
                    name=f"stage_{stage}_block_{i}",
                )(x, train)
        pool = AttentionPool(
            self.heads, self.embedding_dim, self.dtype, self.attention, name="pool"
        )
        return pool(x)

"""EfficientNet (Tan and Le 2019, arXiv 1905.11946): picture -> map of the last MBConv stage.

The classifier's 1x1 convolution behind that stage is not here: ALIGN (arXiv 2102.05918) pools the
map itself, and its text tower ends at the map's width.

All sizes are one network scaled: channels by `width`, repeats of a stage by `depth`.

Letters: B batch, S side in pixels, h, w sides of a map, C channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.models.batch_norm import BatchNorm
from capjax.models.pixels import HALF, Pixels, normalize

COEFFICIENTS = {  # width, depth
    "B0": (1.0, 1.0),
    "B1": (1.0, 1.1),
    "B2": (1.1, 1.2),
    "B3": (1.2, 1.4),
    "B4": (1.4, 1.8),
    "B5": (1.6, 2.2),
    "B6": (1.8, 2.6),
    "B7": (2.0, 3.1),
    "L2": (4.3, 5.3),
}


class Stage(NamedTuple):
    """Blocks of one kind; only the first of a stage has its stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


STEM_CHANNELS = 32
STAGES = (  # of B0
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)


def scale_channels(channels: int, width: float) -> int:
    """The product rounded to a multiple of 8, never below nine tenths of it."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def scale_stages(width: float, depth: float) -> tuple[Stage, ...]:
    """The stages of a scaled network."""
    return tuple(
        stage._replace(
            channels=scale_channels(stage.channels, width),
            repeats=math.ceil(depth * stage.repeats),
        )
        for stage in STAGES
    )


def tap_by_tap(x: jax.Array, kernel: jax.Array, strides, padding, **_: object) -> jax.Array:
    """`lax.conv_general_dilated` of [B,h,w,C] with [k,k,1,C], each channel by itself."""
    sides = kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], sides, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], sides, strides, strict=True))
    total = jnp.zeros((len(x), height, width, x.shape[-1]), x.dtype)
    for i in range(sides[0]):
        for j in range(sides[1]):
            rows = slice(i, i + (height - 1) * strides[0] + 1, strides[0])
            columns = slice(j, j + (width - 1) * strides[1] + 1, strides[1])
            total += x[:, rows, columns] * kernel[i, j, 0]
    return total


class Layers(nn.Module):
    """What every block shares.

    padding: where a strided convolution sees beyond the map. "same": as much on both sides as the
      map's size calls for; "late": always one more behind than before, whatever the size. They
      differ on maps of odd size, where the public ALIGN weights were trained with "late".
    batch_norm_group: see `BatchNorm`.
    depthwise: how a channel is convolved by itself: "conv", or "taps", the same sum written out,
      which on a CPU, where XLA has no depthwise convolution, takes a third of the time.
    """

    dtype: jnp.dtype
    padding: str
    batch_norm_group: int
    depthwise: str

    def conv(self, name: str, features: int, kernel: int, stride: int = 1, groups: int = 1):
        """A convolution without bias; `groups` is 1, or `features`: each channel by itself."""
        padding = "SAME"
        if stride > 1 and self.padding == "late":
            padding = [(kernel // 2 - 1, kernel // 2)] * 2
        elif self.padding not in ("same", "late"):
            raise ValueError(f"unknown padding {self.padding!r}: choose 'same' or 'late'")
        if self.depthwise not in ("conv", "taps"):
            raise UserError(f"unknown depthwise={self.depthwise!r}: choose 'conv' or 'taps'")
        return nn.Conv(
            features,
            (kernel, kernel),
            stride,
            padding,
            feature_group_count=groups,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            conv_general_dilated=(tap_by_tap if groups > 1 and self.depthwise == "taps" else None),
            name=name,
        )

    def norm(self, name: str) -> BatchNorm:
        """A BatchNorm with the constants of EfficientNet."""
        return BatchNorm(1e-3, 0.99, self.batch_norm_group, self.dtype, name=name)


class MBConv(Layers):
    """Widen, convolve each channel by itself, weigh the channels, narrow: [B,h,w,C] -> a map."""

    stage: Stage
    stride: int
    drop_rate: float  # of the whole branch, for each picture

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        channels = x.shape[-1]
        wide = channels * self.stage.expansion
        y = x
        if wide != channels:
            y = nn.swish(self.norm("expand_norm")(self.conv("expand_conv", wide, 1)(y), train))
        y = self.conv("depthwise_conv", wide, self.stage.kernel, self.stride, groups=wide)(y)
        y = nn.swish(self.norm("depthwise_norm")(y, train))
        squeezed = y.mean((1, 2), keepdims=True)
        # A quarter of the width that the block was given, not of the one it widens to.
        squeezed = nn.Dense(max(1, channels // 4), dtype=self.dtype, name="squeeze")(squeezed)
        y = y * nn.sigmoid(nn.Dense(wide, dtype=self.dtype, name="excite")(nn.swish(squeezed)))
        y = self.norm("project_norm")(self.conv("project_conv", self.stage.channels, 1)(y), train)
        if self.stride > 1 or self.stage.channels != channels:
            return y
        # Drop-connect: a picture's branch is left out as a whole.
        drop = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2, 3))
        return x + drop(y, deterministic=not train)


class EfficientNet(Layers):
    """uint8 pictures [B,S,S,3] -> [B,h,w,C] with h = w = S / 32."""

    width: float = 1.0
    depth: float = 1.0
    pixels: Pixels = HALF
    drop_connect: float = 0.2  # of the last block; the first has none
    padding: str = "same"
    batch_norm_group: int = 0
    depthwise: str = "conv"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        shared = (self.dtype, self.padding, self.batch_norm_group, self.depthwise)
        x = normalize(image, self.dtype, self.pixels)
        x = self.conv("stem_conv", scale_channels(STEM_CHANNELS, self.width), 3, 2)(x)
        x = nn.swish(self.norm("stem_norm")(x, train))
        stages = scale_stages(self.width, self.depth)
        blocks = [(s, s.stride if i == 0 else 1) for s in stages for i in range(s.repeats)]
        for number, (stage, stride) in enumerate(blocks):
            rate = self.drop_connect * number / len(blocks)
            x = MBConv(*shared, stage, stride, rate, name=f"block_{number}")(x, train)
        return x

"""BERT's encoder (Devlin et al. 2019, arXiv 1810.04805): tokens -> one state a token.

Post-norm blocks, every token sees every other but the padding; the state of the first token
([CLS]) stands for the text. Neither the pooler (a tanh layer on [CLS]) nor the heads are here.

Letters: B batch, L tokens, D width.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.models.transformer import BlockConfig, BlockInit, Stack, activation_of

SEGMENTS = 2


@dataclasses.dataclass(frozen=True)
class Size:
    """Depth and width; a head has 64 channels, the MLP is four times as wide."""

    layers: int
    width: int


SIZES = {"mini": Size(4, 256), "base": Size(12, 768), "large": Size(24, 1024)}


def block_config(
    width: int, heads: int, dropout: float, dtype: jnp.dtype, attention: str = "xla"
) -> BlockConfig:
    """BERT's blocks of this width."""
    return BlockConfig(
        width,
        heads,
        4 * width,
        dropout,
        dtype,
        attention,
        activation_of("gelu"),
        epsilon=1e-12,
        post_norm=True,
        init=BlockInit(*[nn.initializers.normal(0.02)] * 4),
    )


class Bert(nn.Module):
    """tokens int32 [B,L] -> [B,L,D]; UserError for texts longer than `max_length`."""

    vocab_size: int
    max_length: int
    layers: int
    config: BlockConfig
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        words: jax.Array,
        train: bool = False,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        """`words`: bool [B,L], False for padding, whose states mean nothing; `segments`: int32
        [B,L], 0 or 1, None: all 0."""
        c = self.config
        length = tokens.shape[1]
        if length > self.max_length:
            raise UserError(
                f"texts of {length} tokens exceed the model's max_length={self.max_length}: set "
                "config.tokenizer.max_length to it"
            )

        def table(name: str, rows: int) -> nn.Embed:
            init = nn.initializers.normal(0.02)
            return nn.Embed(rows, c.width, dtype=c.dtype, embedding_init=init, name=name)

        segments = jnp.zeros_like(tokens) if segments is None else segments
        x = table("embedding", self.vocab_size)(tokens)
        x = x + table("positions", self.max_length)(jnp.arange(length))
        x = x + table("segments", SEGMENTS)(segments)
        x = nn.LayerNorm(epsilon=c.epsilon, dtype=c.dtype, name="norm")(x)
        x = nn.Dropout(c.dropout)(x, deterministic=not train)
        mask = words[:, None, None, :]
        return Stack(self.layers, c, remat=self.remat, name="stack")(x, mask=mask, train=train)

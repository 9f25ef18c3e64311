"""BERT's encoder (Devlin et al. 2019, arXiv 1810.04805): tokens -> one state a token.

Post-norm blocks, every token sees every other but the padding; the state of the first token
([CLS]) stands for the text. `Bert` is the encoder as a part of other models, `Model` is a run of
its own: states, BERT's pooler (a tanh layer on [CLS], which classifiers read) and unit vectors.

Letters: B batch, L tokens, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from capjax.errors import UserError
from capjax.models import variants
from capjax.models.coca import unit
from capjax.models.transformer import BlockConfig, BlockInit, Stack, activation_of
from capjax.special_tokens import SpecialTokens

SEGMENTS = 2


@dataclasses.dataclass(frozen=True)
class Size:
    """Depth and width; a head has 64 channels, the MLP is four times as wide."""

    layers: int
    width: int


SIZES = {"mini": Size(4, 256), "base": Size(12, 768), "large": Size(24, 1024)}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes and options of a `Model`."""

    layers: int
    width: int
    heads: int
    mlp_dim: int
    max_positions: int = 512
    activation: str = "gelu"
    epsilon: float = 1e-12
    pooler: bool = True
    embedding: str = "cls"  # what `embed_text` is made of: the state of [CLS], or the "mean" of all
    rows: int | None = None  # of the embedding, where it has more than there are tokens


VARIANTS = {
    "tiny": Variant(2, 128, 2, 512),
    **{
        name: Variant(size.layers, size.width, size.width // 64, 4 * size.width)
        for name, size in SIZES.items()
    },
    "minilm-l6": Variant(6, 384, 12, 1536, embedding="mean"),  # all-MiniLM-L6-v2
}


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
    """tokens int32 [B,L] -> [B,L,D].

    It has positions for `max_length` tokens, or for `max_positions`, as published ones, however
    short the rows are. UserError for texts that are longer.
    """

    vocab_size: int
    max_length: int
    layers: int
    config: BlockConfig
    remat: str = "none"
    max_positions: int | None = None

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
        field = "max_length" if self.max_positions is None else "max_positions"
        positions = getattr(self, field)
        if length > positions:
            raise UserError(
                f"texts of {length} tokens exceed the model's {field}={positions}: set "
                "config.tokenizer.max_length to it"
            )

        def table(name: str, rows: int) -> nn.Embed:
            init = nn.initializers.normal(0.02)
            return nn.Embed(rows, c.width, dtype=c.dtype, embedding_init=init, name=name)

        segments = jnp.zeros_like(tokens) if segments is None else segments
        x = table("embedding", self.vocab_size)(tokens)
        x = x + table("positions", positions)(jnp.arange(length))
        x = x + table("segments", SEGMENTS)(segments)
        x = nn.LayerNorm(epsilon=c.epsilon, dtype=c.dtype, name="norm")(x)
        x = nn.Dropout(c.dropout)(x, deterministic=not train)
        mask = words[:, None, None, :]
        return Stack(self.layers, c, remat=self.remat, name="stack")(x, mask=mask, train=train)


class Model(nn.Module):
    """Rows [CLS] w1..wn [SEP] [PAD]..., int32 [B,L], in; states and their summaries out.

    `words` and `segments`, each [B,L], are for rows of two texts, [CLS] a [SEP] b [SEP]: without
    them a text ends at its first [SEP], and all of it is of segment 0.
    """

    vocab_size: int
    max_length: int
    variant: str = "base"
    overrides: Mapping[str, Any] | None = None
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.1  # attention weights are not dropped
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("BERT variant", VARIANTS, self.variant, "overrides", self.overrides)
        if v.embedding not in ("cls", "mean"):
            raise UserError(f"embedding={v.embedding!r} must be 'cls' or 'mean'")
        rows = v.rows or self.vocab_size
        if rows < self.vocab_size:
            raise UserError(
                f"the embedding has {rows} rows and the tokenizer {self.vocab_size} tokens: choose "
                "the tokenizer that it belongs to"
            )
        dtype = jnp.dtype(self.dtype)
        config = block_config(v.width, v.heads, self.dropout, dtype, self.attention)._replace(
            mlp_dim=v.mlp_dim, activation=activation_of(v.activation), epsilon=v.epsilon
        )
        self.text_tower = Bert(rows, self.max_length, v.layers, config, self.remat, v.max_positions)
        self.by_mean = v.embedding == "mean"
        self.pooler = (
            nn.Dense(v.width, dtype=dtype, kernel_init=nn.initializers.normal(0.02))
            if v.pooler
            else None
        )

    def inputs(self) -> tuple[jax.Array, ...]:
        """Arguments of the call for a batch of one, from which parameters are made."""
        return (jnp.zeros((1, self.max_length), jnp.int32),)

    def __call__(
        self,
        tokens: jax.Array,
        train: bool = False,
        words: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """int32 [B,L] -> states [B,L,D], and what a classifier of texts reads, [B,D].

        That is BERT's pooler, or the state of [CLS] where the variant has none.
        """
        states = self.encode_text(tokens, train, words, segments)
        first = states[:, 0]
        return states, first if self.pooler is None else jnp.tanh(self.pooler(first))

    def encode_text(
        self,
        tokens: jax.Array,
        train: bool = False,
        words: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        """int32 [B,L] -> states [B,L,D]; those of padding mean nothing."""
        return self.text_tower(tokens, self._words(tokens, words), train, segments)

    def embed_text(
        self,
        tokens: jax.Array,
        train: bool = False,
        words: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        """int32 [B,L] -> float32 [B,D] of unit length; of which states, the variant says."""
        states = self.encode_text(tokens, train, words, segments).astype(jnp.float32)
        if not self.by_mean:
            return unit(states[:, 0])
        # Of unit length, the sum is the mean.
        return unit(jnp.where(self._words(tokens, words)[..., None], states, 0).sum(1))

    def _words(self, tokens: jax.Array, words: jax.Array | None) -> jax.Array:
        return self.special_tokens.until_end(tokens) if words is None else words

"""T5 (Raffel et al. 2020, arXiv 1910.10683): a text is read, another one is written.

    source --encoder, every word sees every other--> states
    target --decoder, causal, with cross-attention to the states--> next-token logits

Positions enter as a bias of the attention's scores alone: one number a head for each bucket of
distances, learned once a stack and shared by its layers. Norms are RMSNorms, no layer has a bias,
scores are not divided by the root of the head's width.

    t5-*         version 1.0: relu; the embedding also writes, its input scaled by width^-0.5
    flan-t5-*    version 1.1's sizes: the MLP is gated by a GELU, the head is a matrix of its own

The decoder begins with the padding: with such a tokenizer (`special_tokens.bos` is its `pad`) one
kind of rows, BOS w1..wn EOS PAD..., serves both sides, and the encoder drops the BOS.

Not T5's: attention weights and the MLP's hidden layer are not dropped out in training.

Letters: B batch, S source positions, L tokens of a row, T = L - 1 target positions, D width,
H heads, V vocabulary, N positions of a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from capjax.errors import UserError
from capjax.models import variants
from capjax.models.attention import causal_mask
from capjax.models.transformer import BlockCache, BlockConfig, BlockInit, Stack, activation_of
from capjax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes and options; the defaults are those of version 1.0."""

    layers: int  # of the encoder
    width: int
    heads: int
    mlp_dim: int
    head_width: int = 64
    decoder_layers: int | None = None  # where they are not as many
    activation: str = "relu"
    gated: bool = False
    tied: bool = True  # one embedding for reading and writing
    scaled: bool = True  # what is written from is multiplied by width^-0.5
    buckets: int = 32
    max_distance: int = 128  # from which on all distances share a bucket
    epsilon: float = 1e-6
    rows: int | None = None  # of the embedding, where it has more than there are tokens


_ROWS = 32_128  # of all published weights; their tokenizer has 32,000 pieces and 100 sentinels
_V1_1 = dict(activation="gelu_tanh", gated=True, tied=False, scaled=False, rows=_ROWS)
VARIANTS = {
    "tiny": Variant(2, 64, 4, 128, 16),
    "t5-small": Variant(6, 512, 8, 2048, rows=_ROWS),
    "t5-base": Variant(12, 768, 12, 3072, rows=_ROWS),
    "t5-large": Variant(24, 1024, 16, 4096, rows=_ROWS),
    "flan-t5-small": Variant(8, 512, 6, 1024, **_V1_1),
    "flan-t5-base": Variant(12, 768, 12, 2048, **_V1_1),
    "flan-t5-large": Variant(24, 1024, 16, 2816, **_V1_1),
    "flan-t5-xl": Variant(24, 2048, 32, 5120, **_V1_1),
    "flan-t5-xxl": Variant(24, 4096, 64, 10_240, **_V1_1),
}


def bucket_of_distance(buckets: int, max_distance: int) -> np.ndarray:
    """int32 [max_distance + 1]: the bucket of each distance, for one direction.

    Half of the buckets are for one distance each, the others grow with its logarithm (section 2.1).
    """
    exact = buckets // 2
    distance = np.arange(max_distance + 1)
    growth = np.log(np.maximum(distance, 1) / exact) / np.log(max_distance / exact)
    far = exact + (growth * (buckets - exact)).astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(far, buckets - 1)).astype(np.int32)


class RelativeBias(nn.Module):
    """What is added to a head's scores, by how far the key is from the query.

    With `causal` all buckets are for keys before the query; otherwise half of them are for keys
    behind it.
    """

    heads: int
    buckets: int
    max_distance: int
    causal: bool
    std: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        """Positions int32 [N] and [S] -> [1,H,N,S]."""
        shape = (self.buckets, self.heads)
        embedding = self.param("embedding", nn.initializers.normal(self.std), shape)
        bucket = self.bucket(keys[None, :] - queries[:, None])
        return embedding.astype(self.dtype)[bucket].transpose(2, 0, 1)[None]

    def bucket(self, offset: jax.Array) -> jax.Array:
        """int32 of any shape, key - query -> the row of the embedding."""
        each = self.buckets if self.causal else self.buckets // 2
        table = jnp.asarray(bucket_of_distance(each, self.max_distance))
        distance = jnp.maximum(-offset, 0) if self.causal else jnp.abs(offset)
        near = table[jnp.minimum(distance, self.max_distance)]
        return near if self.causal else near + each * (offset > 0)


class Tower(nn.Module):
    """One side of T5 between embedding and head; the one with `cross` is the decoder."""

    layers: int
    config: BlockConfig
    buckets: int
    max_distance: int
    cross: bool = False
    remat: str = "none"

    def setup(self):
        c = self.config
        self.relative_bias = RelativeBias(
            c.heads, self.buckets, self.max_distance, self.cross, c.width**-0.5, c.dtype
        )
        self.stack = Stack(self.layers, c, self.cross, self.remat)
        self.drop = nn.Dropout(c.dropout)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        """x [B,T,D] -> [B,T,D]; the rest as in `Stack`."""
        at = jnp.arange(x.shape[1])
        x = self.drop(x, deterministic=not train)
        x = self.stack(x, context, mask, train, self.relative_bias(at, at), context_mask)
        return self.drop(x, deterministic=not train)

    def step(
        self, x: jax.Array, position: jax.Array, caches: list[BlockCache], context_mask: jax.Array
    ):
        """x [B,N,D] from index `position` on -> ([B,N,D], caches)."""
        length = caches[0].self_attention.key.shape[2]
        bias = self.relative_bias(position + jnp.arange(x.shape[1]), jnp.arange(length))
        return self.stack.step(x, position, caches, bias, context_mask)


class Decoding(NamedTuple):
    """What is kept between decoding steps."""

    caches: list[BlockCache]
    words: jax.Array  # bool [B,1,1,S]: what of the source is no padding


class Model(nn.Module):
    """Rows of tokens int32 [B,L] of source and target in, logits float32 [B,L-1,V] out."""

    vocab_size: int
    max_length: int
    variant: str = "t5-small"
    overrides: Mapping[str, Any] | None = None
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        super().__post_init__()

    def setup(self):
        v = variants.resolve("T5 variant", VARIANTS, self.variant, "overrides", self.overrides)
        normal = nn.initializers.normal
        # Published: queries are smaller by head_width^-0.5, which takes the place of a scale.
        # Here queries, keys and values are made alike, so each takes half of it, and the output
        # gives it back to the values: scores and sums are drawn as published.
        half = v.head_width**-0.25
        config = BlockConfig(
            v.width,
            v.heads,
            v.mlp_dim,
            self.dropout,
            jnp.dtype(self.dtype),
            self.attention,
            activation_of(v.activation),
            v.epsilon,
            init=BlockInit(
                normal(half * v.width**-0.5),
                normal((v.heads * v.head_width) ** -0.5 / half),
                normal(v.width**-0.5),
                normal(v.mlp_dim**-0.5),
            ),
            norm="rms",
            gated=v.gated,
            attention_bias=(False, False),
            mlp_bias=False,
            head_width=v.head_width,
            attention_scale=1.0,
        )
        rows = v.rows or self.vocab_size
        if rows < self.vocab_size:
            raise UserError(
                f"the embedding has {rows} rows and the tokenizer {self.vocab_size} tokens: extend "
                "the embedding when it is imported, or choose the tokenizer that it belongs to"
            )
        self.embedding = nn.Embed(rows, v.width, dtype=config.dtype, embedding_init=normal(1.0))
        self.encoder = Tower(v.layers, config, v.buckets, v.max_distance, remat=self.remat)
        self.decoder = Tower(
            v.layers if v.decoder_layers is None else v.decoder_layers,
            config,
            v.buckets,
            v.max_distance,
            cross=True,
            remat=self.remat,
        )
        self.tied = v.tied
        if not v.tied:
            init = normal(v.width**-0.5)
            self.head = nn.Dense(rows, use_bias=False, dtype=config.dtype, kernel_init=init)
        self.before_head = v.width**-0.5 if v.scaled else 1.0

    def inputs(self) -> tuple[jax.Array, ...]:
        """Arguments of the call for a batch of one, from which parameters are made."""
        row = jnp.zeros((1, self.max_length), jnp.int32)
        return row, row

    def __call__(self, source: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        """Rows int32 [B,L] and [B,L] -> logits float32 [B,L-1,V] for target[:, 1:]."""
        encoded, words = self.encode_rows(source, train)
        return self.logits(target[:, :-1], encoded, words, train)

    def encode_rows(self, rows: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """The tokenizer's rows int32 [B,L] -> states [B,S,D] and what is no padding, bool [B,S].

        The encoder reads no BOS: S is L - 1 for rows that begin with one.
        """
        tokens = rows if self.special_tokens.bos is None else rows[:, 1:]
        words = self.special_tokens.until_end(tokens)
        return self.encode(tokens, words, train), words

    def encode(self, tokens: jax.Array, words: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,S], bool [B,S] (False: padding, whose states mean nothing) -> [B,S,D]."""
        x = self.embedding(tokens)
        return self.encoder(x, mask=words[:, None, None, :], train=train)

    def logits(
        self, target: jax.Array, encoded: jax.Array, words: jax.Array, train: bool = False
    ) -> jax.Array:
        """int32 [B,T] that begin with `special_tokens.start`, [B,S,D], bool [B,S] -> [B,T,V].

        Row t, float32, is about the token after target[:, t].
        """
        x, seen = self.embedding(target), words[:, None, None, :]
        x = self.decoder(x, encoded, causal_mask(x.shape[1]), train, seen)
        return self.token_logits(x)

    def decoding_context(self, encoded: jax.Array, words: jax.Array) -> jax.Array:
        """[B,S,D], bool [B,S] -> [B,S,D+1]: one array to decode from.

        The last channel is 1 for a word and 0 for padding. A context of zeros is thus one of no
        words, and adds nothing to the decoder's states: what guidance contrasts with.
        """
        return jnp.concatenate([encoded, words[..., None].astype(encoded.dtype)], -1)

    def start_decoding(self, context: jax.Array, length: int | None = None) -> Decoding:
        """The state before the first of `length` tokens (L - 1), for `decoding_context`'s
        [B,S,D+1]."""
        length = length or self.max_length - 1
        caches = self.decoder.stack.start(len(context), length, context[..., :-1])
        return Decoding(caches, context[:, None, None, :, -1] > 0)

    def decode_step(self, tokens: jax.Array, position: jax.Array, state: Decoding):
        """int32 [B] at index `position` -> (next-token logits float32 [B,V], state)."""
        states, state = self.read_tokens(tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state

    def read_tokens(self, tokens: jax.Array, position: jax.Array, state: Decoding):
        """int32 [B,N] from index `position` on -> (what logits are made of [B,N,D], state)."""
        x = self.embedding(tokens)
        states, caches = self.decoder.step(x, position, state.caches, state.words)
        return states, state._replace(caches=caches)

    def token_logits(self, x: jax.Array) -> jax.Array:
        """[..,D] of `read_tokens` -> next-token logits float32 [..,V]."""
        x = x * self.before_head
        logits = self.embedding.attend(x) if self.tied else self.head(x)
        return logits[..., : self.vocab_size].astype(jnp.float32)

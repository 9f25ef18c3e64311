"""A causal language model: GPT-2's, Llama's and Qwen2's architecture as options of one stack.

It reads tokens, and before them, if a captioner asks for it, a prefix of vectors (pictures as
words, ClipCap, arXiv 2111.09734); with `cross` its blocks also attend to a context.

    GPT-2    learned positions, LayerNorm, the embedding writes too (Radford et al. 2019)
    Llama    rotary positions, RMSNorm, gated MLP, grouped queries, no biases (arXiv 2302.13971)
    Qwen2    the same with biases of query, key and value (arXiv 2407.10671)

Letters: B batch, L tokens of a row, T = L - 1 positions, N positions of a step, P positions of the
prefix, D width, V vocabulary, C context positions, E their width.
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
from capjax.models import lora, variants
from capjax.models.attention import causal_mask
from capjax.models.lora import Lora
from capjax.models.rotary import Rotary, Stretch
from capjax.models.transformer import BlockConfig, BlockInit, Stack, activation_of
from capjax.special_tokens import SpecialTokens


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes and options; the defaults are GPT-2's."""

    layers: int
    width: int
    heads: int
    mlp_dim: int
    max_positions: int = 1024  # prefix included
    positions: str = "learned"  # or "rotary"
    rotary_theta: float = 10_000.0
    rotary_stretch: tuple[float, float, float, int] | None = None  # see `rotary.Stretch`
    norm: str = "layer"  # or "rms"
    epsilon: float = 1e-5
    activation: str = "gelu_tanh"
    gated: bool = False
    attention_bias: tuple[bool, bool] = (True, True)  # of query, key and value; of the output
    mlp_bias: bool = True
    kv_heads: int | None = None
    head_width: int | None = None
    tied: bool = True  # one embedding for reading and writing
    rows: int | None = None  # of the embedding, where it has more than there are tokens


def _llama(layers: int, width: int, heads: int, kv_heads: int, mlp_dim: int, **fields) -> Variant:
    options = dict(
        positions="rotary",
        norm="rms",
        activation="silu",
        gated=True,
        attention_bias=(False, False),
        mlp_bias=False,
        tied=False,
    )
    return Variant(layers, width, heads, mlp_dim, kv_heads=kv_heads, **options | fields)


_QWEN2 = dict(
    attention_bias=(True, False), rotary_theta=1e6, epsilon=1e-6, tied=True, max_positions=32_768
)
_LLAMA_3_2 = dict(
    rotary_theta=5e5, rotary_stretch=(32.0, 1.0, 4.0, 8192), tied=True, max_positions=131_072
)
VARIANTS = {
    "tiny": Variant(2, 64, 4, 256, 128),
    "gpt2": Variant(12, 768, 12, 3072),
    "gpt2-medium": Variant(24, 1024, 16, 4096),
    "gpt2-large": Variant(36, 1280, 20, 5120),
    "gpt2-xl": Variant(48, 1600, 25, 6400),
    "stories260k": _llama(5, 64, 8, 4, 172, max_positions=512, tied=True),
    "llama-2-7b": _llama(32, 4096, 32, 32, 11_008, max_positions=4096),
    "llama-3.2-1b": _llama(16, 2048, 32, 8, 8192, rows=128_256, **_LLAMA_3_2),
    "llama-3.2-3b": _llama(28, 3072, 24, 8, 8192, rows=128_256, **_LLAMA_3_2),
    "qwen2-0.5b": _llama(24, 896, 14, 2, 4864, rows=151_936, **_QWEN2),
    "qwen2-1.5b": _llama(28, 1536, 12, 2, 8960, rows=151_936, **_QWEN2),
}


class LanguageModel(nn.Module):
    """The stack between two uses of the vocabulary; see `Model` for a run of its own."""

    vocab_size: int
    variant: Variant
    cross: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    attention: str = "xla"
    lora: Lora | None = None

    def setup(self):
        v = self.variant
        normal = nn.initializers.normal
        into_residual = normal(0.02 * (2 * v.layers) ** -0.5)
        stretch = None if v.rotary_stretch is None else Stretch(*v.rotary_stretch)
        if v.positions not in ("learned", "rotary"):
            raise UserError(f"positions={v.positions!r} must be 'learned' or 'rotary'")
        config = BlockConfig(
            v.width,
            v.heads,
            v.mlp_dim,
            self.dropout,
            self.dtype,
            self.attention,
            activation_of(v.activation),
            v.epsilon,
            init=BlockInit(
                normal(0.02),
                into_residual,
                normal(0.02),
                into_residual,
                # A trained model that is given a context goes on as before.
                cross_out=nn.initializers.zeros,
            ),
            norm=v.norm,
            gated=v.gated,
            attention_bias=v.attention_bias,
            mlp_bias=v.mlp_bias,
            kv_heads=v.kv_heads,
            head_width=v.head_width,
            rotary=Rotary(v.rotary_theta, stretch) if v.positions == "rotary" else None,
            lora=self.lora,
        )
        rows = v.rows or self.vocab_size
        if rows < self.vocab_size:
            raise UserError(
                f"the embedding has {rows} rows and the tokenizer {self.vocab_size} tokens: extend "
                "the embedding when it is imported, or choose the tokenizer that it belongs to"
            )
        self.embedding = nn.Embed(rows, v.width, dtype=self.dtype, embedding_init=normal(0.02))
        if v.positions == "learned":
            self.positions = self.param("positions", normal(0.01), (v.max_positions, v.width))
        self.stack = Stack(v.layers, config, self.cross, self.remat)
        if not v.tied:
            self.head = nn.Dense(rows, use_bias=False, dtype=self.dtype, kernel_init=normal(0.02))
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self,
        tokens: jax.Array,
        prefix: jax.Array | None = None,
        context: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """tokens int32 [B,T], prefix [B,P,D], context [B,C,E] -> logits float32 [B,T,V].

        Row t is about the token after tokens[:, t].
        """
        x = self.embedding(tokens)
        if prefix is not None:
            x = jnp.concatenate([prefix.astype(x.dtype), x], 1)
        length = x.shape[1]
        self._check(length)
        x = self.drop(self._placed(x, 0), deterministic=not train)
        x = self.stack(x, context, causal_mask(length), train)
        return self.write(x[:, length - tokens.shape[1] :])

    def start(
        self, batch: int, length: int, prefix: jax.Array | None = None, context=None
    ) -> list[Any]:
        """Caches for the prefix [B,P,D], which they hold already, and `length` tokens."""
        before = 0 if prefix is None else prefix.shape[1]
        self._check(before + length)
        caches = self.stack.start(batch, before + length, context)
        if before:
            x = self._placed(prefix.astype(self.dtype), 0)
            _, caches = self.stack.step(x, jnp.int32(0), caches)
        return caches

    def step(self, tokens: jax.Array, position: jax.Array, caches: list[Any]):
        """tokens int32 [B,N] from index `position` on, prefix counted -> ([B,N,D], caches)."""
        return self.stack.step(self._placed(self.embedding(tokens), position), position, caches)

    def write(self, x: jax.Array) -> jax.Array:
        """States [..,D] -> next-token logits float32 [..,V]."""
        logits = self.embedding.attend(x) if self.variant.tied else self.head(x)
        return logits[..., : self.vocab_size].astype(jnp.float32)

    def _placed(self, x: jax.Array, first: int | jax.Array) -> jax.Array:
        """x [B,N,D] with the learned positions from `first` on, if there are any."""
        if self.variant.positions != "learned":
            return x
        at = jax.lax.dynamic_slice_in_dim(self.positions, first, x.shape[1])
        return x + at.astype(x.dtype)

    def _check(self, length: int) -> None:
        if length > self.variant.max_positions:
            raise UserError(
                f"{length} positions, prefix included, exceed the language model's "
                f"max_positions={self.variant.max_positions}: shorten tokenizer.max_length"
            )


class Model(nn.Module):
    """A language model as a run: rows of tokens int32 [B,L] in, logits [B,L-1,V] out."""

    vocab_size: int
    max_length: int
    variant: str = "gpt2"
    overrides: Mapping[str, Any] | None = None
    lora: Mapping[str, Any] | None = None  # see `capjax.models.lora.Lora`
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        object.__setattr__(self, "overrides", FrozenDict(self.overrides or {}))
        object.__setattr__(self, "lora", FrozenDict(self.lora or {}))
        super().__post_init__()

    def setup(self):
        self.language_model = LanguageModel(
            self.vocab_size,
            resolve(self.variant, self.overrides),
            dropout=self.dropout,
            dtype=jnp.dtype(self.dtype),
            remat=self.remat,
            attention=self.attention,
            lora=lora.make(self.lora),
        )

    def inputs(self) -> tuple[jax.Array, ...]:
        """Arguments of the call for a batch of one, from which parameters are made."""
        return (jnp.zeros((1, self.max_length), jnp.int32),)

    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [B,L] -> logits float32 [B,L-1,V] for tokens[:, 1:]."""
        return self.language_model(tokens[:, :-1], train=train)

    def start_decoding(self, context: jax.Array, length: int | None = None) -> list[Any]:
        """Caches for texts of at most `length` tokens (L - 1); the context [B,0,D] holds nothing
        but the batch."""
        if context.shape[1]:
            raise UserError("a language model of its own has no context: give one of 0 vectors")
        return self.language_model.start(context.shape[0], length or self.max_length - 1)

    def decode_step(self, tokens: jax.Array, position: jax.Array, state: list[Any]):
        """int32 [B] at index `position` -> (next-token logits float32 [B,V], state)."""
        states, state = self.read_tokens(tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state

    def read_tokens(self, tokens: jax.Array, position: jax.Array, state: list[Any]):
        """int32 [B,N] from index `position` on -> (what logits are made of [B,N,D], state)."""
        return self.language_model.step(tokens, position, state)

    def token_logits(self, states: jax.Array) -> jax.Array:
        """[..,D] of `read_tokens` -> next-token logits float32 [..,V]."""
        return self.language_model.write(states)


def resolve(variant: str, overrides: Mapping[str, Any]) -> Variant:
    """The named variant with some of its fields replaced; lists become tuples."""
    frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    return variants.resolve("language model", VARIANTS, variant, "overrides", frozen)

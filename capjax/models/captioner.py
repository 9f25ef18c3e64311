"""A captioner put together from an image encoder and a language model, each possibly published.

    picture --image tower--> tokens --+--(pooler)--> projection --> prefix of the text
                                      +--> context of cross-attentions added to every block

`connector="prefix"` is ClipCap's and LLaVA's way (arXiv 2111.09734, 2304.08485): projected image
tokens stand before the words, and the language model itself is left as it is.
`connector="cross"` adds a cross-attention to each of its blocks, whose output starts at zero, so
that at first the language model writes as it did.

Either way a context of zeros is no picture (guiding, arXiv 2307.16686): the prefix of zeros is
read as such, and a cross-attention to zeros gives the same to every word.

The parts are called `image_tower` and `language_model`: config.init_parts fills them.

Letters: B batch, S side in pixels, N image tokens, W their width, P positions of the prefix, L
caption positions, T positions of a step, D width of the language model, V vocabulary.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from capjax.errors import UserError
from capjax.models import language_model, lora
from capjax.models.coca import ImageFeatures, unit
from capjax.models.pooler import AttentionalPooler
from capjax.special_tokens import SpecialTokens

CONNECTORS = ("prefix", "cross")
POOLER_HEADS = 8


class Model(nn.Module):
    """Pictures are uint8 [B,S,S,3], tokens int32 [B,L].

    image: {"name": a module with `image_tower`, "variant", "overrides"}: capjax.models.clip,
      capjax.models.siglip or capjax.models.image_encoder.
    text: {"variant", "overrides"} of `capjax.models.language_model`, and "lora".
    queries: with the prefix, how many learned queries read the image tokens; 0: all tokens go in.
    """

    vocab_size: int
    max_length: int
    image_size: int
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    connector: str = "prefix"
    queries: int = 0
    special_tokens: SpecialTokens = SpecialTokens()
    dropout: float = 0.0
    dtype: str = "float32"  # of the computation; parameters are float32
    remat: str = "none"
    attention: str = "xla"

    def __post_init__(self):
        # Frozen, because a model is hashed as a static argument of jitted functions.
        for name in ("image", "text"):
            object.__setattr__(self, name, FrozenDict(getattr(self, name)))
        super().__post_init__()

    def setup(self):
        if self.connector not in CONNECTORS:
            raise UserError(f"connector={self.connector!r} must be one of {', '.join(CONNECTORS)}")
        dtype = jnp.dtype(self.dtype)
        rest = (self.dropout, dtype, self.remat, self.attention)
        image = dict(self.image)
        name = image.pop("name", "")
        make = getattr(importlib.import_module(name) if name else None, "image_tower", None)
        if make is None:
            raise UserError(
                f"config.model.image.name={name!r} offers no image_tower: choose capjax.models."
                "clip, capjax.models.siglip or capjax.models.image_encoder"
            )
        image.setdefault("overrides", {})
        self.image_tower = make(self.image_size, image["variant"], image["overrides"], *rest)
        text = dict(self.text)
        variant = language_model.resolve(text["variant"], text.get("overrides", {}))
        cross = self.connector == "cross"
        self.language_model = language_model.LanguageModel(
            self.vocab_size,
            variant,
            cross,
            *rest,
            lora=lora.make(text.get("lora")),
        )
        if not cross:
            self.connection = nn.Dense(variant.width, dtype=dtype)
            if self.queries:
                self.pooler = AttentionalPooler(
                    self.queries, variant.width, POOLER_HEADS, dtype, self.attention
                )

    def encode_image(self, image: jax.Array, train: bool = False) -> ImageFeatures:
        """uint8 [B,S,S,3] -> mean token of unit length [B,W], context [B,P,D] or [B,N,W]."""
        tokens = self.image_tower(image, train)
        embedding = unit(tokens.mean(1))
        if self.connector == "cross":
            return ImageFeatures(embedding, tokens)
        return ImageFeatures(
            embedding, self.connection(self.pooler(tokens) if self.queries else tokens)
        )

    def encode_text(self, tokens: jax.Array, train: bool = False):
        """(None: there is no text embedding, what `caption_logits` reads of the text)."""
        return None, tokens[:, :-1]

    def caption_logits(
        self, words: jax.Array, context: jax.Array, train: bool = False
    ) -> jax.Array:
        """words int32 [B,L-1] of `encode_text`, context -> float32 [B,L-1,V] for tokens[:, 1:]."""
        return self.language_model(words, **self._read_as(context), train=train)

    def start_decoding(self, context: jax.Array, length: int | None = None):
        """Caches for captions of at most `length` positions (L - 1); they hold the prefix already.

        A prefix leaves room for all L - 1: how long it is, is known from the caches' size.
        """
        most = self.max_length - 1
        length = most if self.connector == "prefix" else length or most
        return self.language_model.start(context.shape[0], length, **self._read_as(context))

    def decode_step(self, tokens: jax.Array, position: jax.Array, state):
        """int32 [B] at index `position` -> (next-token logits float32 [B,V], state)."""
        states, state = self.read_tokens(tokens[:, None], position, state)
        return self.token_logits(states[:, 0]), state

    def read_tokens(self, tokens: jax.Array, position: jax.Array, state):
        """int32 [B,T] from index `position` on -> (what logits are made of [B,T,D], state)."""
        if self.connector == "prefix":
            position += state[0].self_attention.key.shape[2] - (self.max_length - 1)
        return self.language_model.step(tokens, position, state)

    def token_logits(self, states: jax.Array) -> jax.Array:
        """[..,D] of `read_tokens` -> next-token logits float32 [..,V]."""
        return self.language_model.write(states)

    def __call__(self, image: jax.Array, tokens: jax.Array, train: bool = False):
        """(ImageFeatures, caption logits [B,L-1,V])."""
        features = self.encode_image(image, train)
        _, words = self.encode_text(tokens, train)
        return features, self.caption_logits(words, features.context, train)

    def _read_as(self, context: jax.Array) -> dict[str, jax.Array]:
        return {"context" if self.connector == "cross" else "prefix": context}

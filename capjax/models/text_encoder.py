"""Text encoder of published two-tower models: tokens -> one state a token.

Token and position embeddings, then the blocks, causal (CLIP) or not (SigLIP). How the states become
one vector is the model's affair.

A text may be told what kind of data it comes from (prefix conditioning, arXiv 2206.01125): each of
`prefixes` names a learned embedding that precedes the text and takes position 0. It is cut off
again from what is returned, so that states and tokens keep the same indices.

Letters: B batch, L tokens, D width, K prefixes.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.models.attention import causal_mask
from capjax.models.transformer import BlockConfig, Stack


class TextEncoder(nn.Module):
    """tokens int32 [B,L] -> [B,L,D] after the last LayerNorm.

    Raises UserError for texts longer than `max_length`, and for a missing or unknown prefix.
    """

    vocab_size: int
    max_length: int
    layers: int
    config: BlockConfig
    causal: bool
    token_std: float
    position_std: float
    prefixes: tuple[str, ...] = ()
    remat: str = "none"

    @nn.compact
    def __call__(
        self, tokens: jax.Array, train: bool = False, prefix: str | jax.Array | None = None
    ) -> jax.Array:
        """`prefix`: the name of one, or int32 [B] (which one for each text)."""
        c = self.config
        if tokens.shape[1] > self.max_length:
            raise UserError(
                f"texts of {tokens.shape[1]} tokens exceed the model's max_length="
                f"{self.max_length}: set config.tokenizer.max_length to it"
            )
        normal = nn.initializers.normal
        embed = nn.Embed(
            self.vocab_size,
            c.width,
            dtype=c.dtype,
            embedding_init=normal(self.token_std),
            name="embedding",
        )
        x = embed(tokens)
        before = 1 if self.prefixes else 0
        if before:
            x = jnp.concatenate([self._prefix(prefix, len(x))[:, None].astype(c.dtype), x], 1)
        elif prefix is not None:
            raise UserError(f"this model has no prefixes, but {prefix!r} was given: list them")
        shape = (before + self.max_length, c.width)
        positions = self.param("positions", normal(self.position_std), shape)
        x = x + positions[: x.shape[1]].astype(c.dtype)
        x = nn.Dropout(c.dropout)(x, deterministic=not train)
        mask = causal_mask(x.shape[1]) if self.causal else None
        x = Stack(self.layers, c, remat=self.remat, name="stack")(x, mask=mask, train=train)
        return x[:, before:]

    def _prefix(self, prefix: str | jax.Array | None, batch: int) -> jax.Array:
        """[B,D]: each text's prefix."""
        # Vectors of their own: weight decay spares vectors, and must not move the prefix of a
        # source that a batch does not hold.
        vectors = {
            name: self.param(
                f"prefix_{name}", nn.initializers.normal(self.token_std), (self.config.width,)
            )
            for name in self.prefixes
        }
        if prefix is None or (isinstance(prefix, str) and prefix not in vectors):
            given = "none was given" if prefix is None else f"{prefix!r} is none of them"
            raise UserError(
                f"texts of this model begin with one of the prefixes {', '.join(vectors)}, and "
                f"{given}: name one"
            )
        if isinstance(prefix, str):
            return jnp.broadcast_to(vectors[prefix], (batch, self.config.width))
        # A number that is none of them gives no number: training stops instead of guessing.
        prefix = jnp.where(prefix < 0, len(vectors), prefix)
        return jnp.stack(list(vectors.values())).at[prefix].get(mode="fill", fill_value=jnp.nan)

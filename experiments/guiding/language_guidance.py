"""A language model's say in captions, compiled once for all alphas and betas of a sweep.

Its line break ends a caption in one of two ways:

    combined   the paper's pseudocode: the line break is scored like any token, by the language
               model and by both branches of the captioner; then its probability is added to EOS's
    end        the language model's line break is its EOS from the start: what the captioner says
               of EOS is added to it (`capjax.decode.companion`)

A captioner that never read a line break gives it the log-probability of a token never seen, about
the same in both branches. With alpha = beta this cancels out and `combined` leaves the end to the
language model. With alpha > beta, (alpha - beta) times that number is added, and captions do not
end; there `end` is needed.

Source: guiding, arXiv 2307.16686, section 3.2 and its pseudocode. V: vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from capjax import special_tokens
from capjax.decode.companion import Companion, Compiled
from capjax.decode.scores import NEVER
from capjax.errors import UserError

WAYS = ("end", "combined")


def transfer(scores: jax.Array, newline: int, eos: int) -> jax.Array:
    """scores [..,V] in which EOS has the sum of both probabilities, and NEWLINE none."""
    both = jnp.logaddexp(scores[..., eos], scores[..., newline])
    return scores.at[..., newline].set(NEVER).at[..., eos].set(both)


@dataclasses.dataclass(frozen=True)
class Guide(Companion):
    """A `Companion` of kind "language" whose alpha and beta are data; way: of `WAYS`."""

    way: str = "end"

    def __post_init__(self):
        super().__post_init__()
        if self.way not in WAYS:
            raise UserError(f"a line break cannot end captions by {self.way!r}: choose of {WAYS}")

    @property
    def static(self) -> Compiled:
        """What a loop is compiled for: alpha and beta are no part of it."""
        kind = _Combined if self.way == "combined" else _Ended
        return kind(*super().static._replace(alpha=0.0, beta=0.0))

    def arrays(self, batch: int) -> tuple[Any, Any, jax.Array]:
        """As `Companion.arrays`; the weights travel with the context."""
        params, context, prompt = super().arrays(batch)
        return params, (context, jnp.array([self.alpha, self.beta], jnp.float32)), prompt


class _Ended(Compiled):
    """The compiled part of a `Guide` whose line break is EOS from the start."""

    def start(self, arrays, *args, **kwargs):
        """As `Compiled.start`."""
        params, (context, _), prompt = arrays
        return super().start((params, context, prompt), *args, **kwargs)

    def combine(self, arrays, told, last, position, logits, scores):
        """As `Compiled.combine`."""
        return self._plain(arrays, self.end_token, told, last, position, logits, scores)

    def _plain(self, arrays, end_token, *args):
        params, (context, weights), prompt = arrays
        weighted = self._replace(alpha=weights[0], beta=weights[1], end_token=end_token)
        return Compiled(*weighted).combine((params, context, prompt), *args)

    # A loop is compiled once for all that are equal, and named tuples of two types may be.
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((type(self), *self))


class _Combined(_Ended):
    """That of a `Guide` whose line break is transferred after combining."""

    def combine(self, arrays, told, last, position, logits, scores):
        """As `Compiled.combine`."""
        scores, told = self._plain(arrays, None, told, last, position, logits, scores)
        if self.end_token is not None:
            scores = transfer(scores, self.end_token, special_tokens.of(self.model).eos)
        return scores, told

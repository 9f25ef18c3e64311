"""What may be done to the scores of next tokens before one is chosen: pure functions.

Scores are logits or log-probabilities [...,V]; what is ruled out becomes -inf. `forbid` and
`flatten` put them in the order of the transformers library: first what forbids or punishes, then
what flattens and cuts.

Letters: R rows (captions being written), V vocabulary, H history: tokens read and written so far,
of which only the first `length` are there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from capjax.decode.options import Options

NEVER = -jnp.inf


def forbid(
    scores: jax.Array,
    history: jax.Array,
    length: jax.Array,
    written: jax.Array,
    eos: int,
    o: Options,
) -> jax.Array:
    """The scores [R,V] after history int32 [R,H], of which `length` tokens are there and `written`
    (a scalar or [R]) count for the minimum length."""
    if o.repetition_penalty != 1:
        scores = repetition_penalty(scores, history, length, o.repetition_penalty)
    if o.no_repeat_ngram:
        scores = no_repeated_ngrams(scores, history, length, o.no_repeat_ngram)
    if o.banned:
        scores = banned_words(scores, history, length, o.banned)
    if o.min_length:
        early = jnp.broadcast_to(written < o.min_length, scores.shape[:1])
        scores = scores.at[:, eos].set(jnp.where(early, NEVER, scores[:, eos]))
    return scores


def flatten(scores: jax.Array, o: Options) -> jax.Array:
    """The scores [...,V] from which a token is drawn."""
    scores = temperature(scores, o.temperature)
    if o.top_k:
        scores = top_k(scores, o.top_k)
    if o.top_p < 1:
        scores = top_p(scores, o.top_p)
    if o.min_p:
        scores = min_p(scores, o.min_p)
    if o.typical_p < 1:
        scores = typical(scores, o.typical_p)
    return scores


def temperature(scores: jax.Array, value: float) -> jax.Array:
    """Divided by it: below 1 the likeliest gain, above 1 they lose."""
    return scores / value


def top_k(scores: jax.Array, count: int) -> jax.Array:
    """Only the `count` best, and what ties with the last of them."""
    best = jax.lax.top_k(scores, min(count, scores.shape[-1]))[0]
    return jnp.where(scores < best[..., -1:], NEVER, scores)


def top_p(scores: jax.Array, mass: float) -> jax.Array:
    """The smallest set of best tokens whose probability reaches `mass` (Holtzman et al. 2020)."""
    order = jnp.argsort(scores, -1)  # the worst first: what is cut is a sum of small numbers
    probabilities = jax.nn.softmax(jnp.take_along_axis(scores, order, -1), -1)
    cut = jnp.cumsum(probabilities, -1) <= 1 - mass
    cut = cut.at[..., -1].set(False)
    return jnp.where(_back(cut, order), NEVER, scores)


def min_p(scores: jax.Array, share: float) -> jax.Array:
    """Only tokens at least `share` times as likely as the likeliest (arXiv 2407.01082)."""
    probabilities = jax.nn.softmax(scores, -1)
    least = share * probabilities.max(-1, keepdims=True)
    return jnp.where(probabilities < least, NEVER, scores)


def typical(scores: jax.Array, mass: float) -> jax.Array:
    """The tokens whose surprise is nearest to the entropy, up to `mass` (arXiv 2202.00666)."""
    log_p = jax.nn.log_softmax(scores, -1)
    entropy = -jnp.sum(jnp.where(jnp.isneginf(log_p), 0, jnp.exp(log_p) * log_p), -1, keepdims=True)
    order = jnp.argsort(jnp.abs(-log_p - entropy), -1)
    ordered = jnp.take_along_axis(jnp.exp(log_p), order, -1)
    # A token is kept while those before it fall short of the mass; so at least one is.
    before = jnp.cumsum(ordered, -1) - ordered
    return jnp.where(_back(before >= mass, order), NEVER, scores)


def repetition_penalty(
    scores: jax.Array, history: jax.Array, length: jax.Array, penalty: float
) -> jax.Array:
    """What is in the history is worth less: scores above 0 are divided by the penalty, those below
    0 multiplied (Keskar et al. 2019, CTRL, section 4.1). scores [R,V], history int32 [R,H]."""
    seen = _among(history, jnp.arange(history.shape[1]) < length, scores.shape[-1])
    punished = jnp.where(scores < 0, scores * penalty, scores / penalty)
    return jnp.where(seen, punished, scores)


def no_repeated_ngrams(
    scores: jax.Array, history: jax.Array, length: jax.Array, size: int
) -> jax.Array:
    """No n-gram of `size` tokens twice (Paulus et al. 2018). scores [R,V], history int32 [R,H]."""
    positions = jnp.arange(history.shape[1])
    # For each position: do the size - 1 tokens before it equal the last ones written?
    same = (positions >= size - 1) & (positions < length)
    for back in range(1, size):
        last = jax.lax.dynamic_index_in_dim(history, length - back, 1)
        same = same & (jnp.roll(history, back, 1) == last)
    return jnp.where(_among(history, same & (length >= size), scores.shape[-1]), NEVER, scores)


def banned_words(
    scores: jax.Array, history: jax.Array, length: jax.Array, words: tuple[tuple[int, ...], ...]
) -> jax.Array:
    """None of these sequences of tokens: the last token of each, where the others were written."""
    for word in words:
        begun = length >= len(word) - 1
        for back, token in enumerate(reversed(word[:-1]), start=1):
            last = jax.lax.dynamic_index_in_dim(history, length - back, 1, keepdims=False)
            begun = begun & (last == token)
        hit = jnp.broadcast_to(begun, scores.shape[:1])
        scores = scores.at[:, word[-1]].set(jnp.where(hit, NEVER, scores[:, word[-1]]))
    return scores


def contrast(expert: jax.Array, amateur: jax.Array, alpha: float, beta: float) -> jax.Array:
    """Contrastive decoding (Li et al. 2023, arXiv 2210.15097; O'Brien and Lewis 2023, 2309.09117).

    (1 + beta) log p_expert - beta log p_amateur, for tokens that the expert finds at least alpha
    times as likely as its best. Both [...,V], logits.
    """
    log_p, log_q = jax.nn.log_softmax(expert, -1), jax.nn.log_softmax(amateur, -1)
    plausible = log_p >= jnp.log(alpha) + log_p.max(-1, keepdims=True)
    return jnp.where(plausible, (1 + beta) * log_p - beta * log_q, NEVER)


def _back(sorted_mask: jax.Array, order: jax.Array) -> jax.Array:
    """A mask over sorted tokens as one over tokens."""
    return jnp.take_along_axis(sorted_mask, jnp.argsort(order, -1), -1)


def _among(tokens: jax.Array, counted: jax.Array, vocabulary: int) -> jax.Array:
    """bool [R,V]: the tokens [R,H] at positions that count, bool [H] or [R,H]."""
    counted = jnp.broadcast_to(counted, tokens.shape)
    rows = jnp.arange(len(tokens))[:, None]
    return jnp.zeros((len(tokens), vocabulary), bool).at[rows, tokens].max(counted)

"""Beam search: the best K captions of a picture together, and a pool of those that are finished.

Each step the 2 K best continuations of a picture's beams are found. Those among the first K that
end go to the pool, scored by log p / length ** length_penalty; of those that do not end the best K
go on. A picture is done when the best that is under way cannot, or by a guess will not, get into
its pool (`early_stopping`), which is the transformers library's rule. With groups, each has K / G
beams and a pool of its own, and a token that an earlier group has just chosen costs it a penalty
(diverse beam search, Vijayakumar et al. 2018, arXiv 1610.02424). Where captions must contain
phrases, those that go on are chosen by `banks`, and none ends that lacks one; to the pool go then
those among the first K of the captions that need no more.

Letters: B pictures, K beams, G groups, W = K / G beams of a group, N continuations (2 W, and more
with phrases), T positions, H = T + 1, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from capjax.decode import banks
from capjax.decode.banks import LOW
from capjax.decode.options import Options
from capjax.decode.phrases import Phrases
from capjax.special_tokens import SpecialTokens


class Pool(NamedTuple):
    """Finished captions of each picture, a group's side by side, the best of a group first."""

    tokens: jax.Array  # int32 [B,K,H]
    score: jax.Array  # [B,K], by length
    log_prob: jax.Array  # [B,K]
    token_scores: jax.Array  # [B,K,T,2], or [B,K,0,2]
    ended: jax.Array  # bool [B,K]: with EOS, not for want of room
    full: jax.Array  # bool [B,K]: there is a caption
    open: jax.Array  # bool [B,G]: a better one may come


class Beams(NamedTuple):
    """What is known of beams or of their continuations: [B,K or N,...]."""

    tokens: jax.Array
    score: jax.Array  # log p as it is searched for
    log_prob: jax.Array
    token_scores: jax.Array


def first_scores(batch: int, o: Options) -> jax.Array:
    """[B,K]: one beam of each group begins, for all are alike."""
    first = jnp.arange(o.num_beams) % (o.num_beams // o.groups) == 0
    return jnp.broadcast_to(jnp.where(first, 0.0, LOW), (batch, o.num_beams))


def empty_pool(tokens: jax.Array, token_scores: jax.Array, o: Options) -> Pool:
    """Without captions; tokens [B,K,H] are padding."""
    shape = tokens.shape[:2]
    no = jnp.zeros(shape, bool)
    low, zero = jnp.full(shape, LOW), jnp.zeros(shape)
    return Pool(tokens, low, zero, token_scores, no, no, jnp.ones((shape[0], o.groups), bool))


def step(
    loop,
    scores: jax.Array,
    log_p: jax.Array,
    forced: tuple[jax.Array, jax.Array],
    lengths: jax.Array,
    phrases: Phrases | None,
    special: SpecialTokens,
    o: Options,
):
    """(what the loop carries of the captions after one token, which beam each comes from [B,K]).

    scores [B,K,V] of the next token, log_p [B,K,branches,V] of both branches; forced: (bool [B],
    int32 [B]) where a prompt says what comes next; lengths [B] of prompts; phrases: what captions
    must contain.
    """
    width, size = o.num_beams // o.groups, scores.shape[-1]
    written, room = loop.position + 1 - lengths, loop.tokens.shape[2] - 1 - lengths  # [B]
    chosen = jnp.zeros((len(scores), size))  # [B,V]: how many earlier groups chose this token
    beams, origins, pools = [], [], []
    for group in range(o.groups):
        mine = slice(group * width, (group + 1) * width)
        now = Beams(
            *(x[:, mine] for x in (loop.tokens, loop.score, loop.log_prob, loop.token_scores))
        )
        worth = scores[:, mine] - o.diversity_penalty * chosen[:, None]
        if phrases is None:
            total = now.score[..., None] + worth
            best, place = jax.lax.top_k(total.reshape(len(total), -1), 2 * width)
            origin, token = place // size, (place % size).astype(jnp.int32)
        else:
            # What is read first is a word where there is no BOS.
            first = 0 if special.bos is None else 1
            best, origin, token, needed = banks.continuations(
                phrases, now.tokens, loop.position, first, special.eos, now.score, worth
            )
        # A prompt goes on with every beam as it is.
        is_forced, asked = forced[0][:, None], forced[1][:, None]
        same = jnp.arange(best.shape[1])
        kept = jnp.pad(now.score, ((0, 0), (0, len(same) - width)), constant_values=LOW)
        origin = jnp.where(is_forced, same % width, origin)
        token = jnp.where(is_forced, asked, token)
        best = jnp.where(is_forced, kept, best)
        more = _continued(now, loop.position, origin, token, best, log_p[:, mine], o)
        ends = (token == special.eos) & ~is_forced
        last = (loop.position + 1 >= loop.tokens.shape[2] - 1) & ~is_forced
        pool = Pool(*(x[:, mine] for x in loop.pool[:-1]), loop.pool.open[:, group : group + 1])
        on = jnp.where(ends | last, LOW, best)
        if phrases is None:
            among = same < width
            at = jax.lax.top_k(on, width)[1]
        else:
            needed = jnp.where(is_forced, 0, needed)
            among = (needed == 0) & (best > LOW / 2) & (banks.rank(best, needed) < width)
            at = banks.share(on, needed, width)
        score = take(on, at)
        pool = _finish(pool, more, ends, (ends | last) & among, written, o)
        going = jax.tree.map(lambda x, at=at: take(x, at), more)._replace(score=score)
        # As long as the prompt lasts nothing is decided.
        pool = pool._replace(open=pool.open & (_open(pool, score, written, room, o) | is_forced))
        beams.append(going)
        origins.append(take(origin, at) + group * width)
        pools.append(pool)
        chosen += jnp.zeros_like(chosen).at[jnp.arange(len(token))[:, None], take(token, at)].add(1)
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *beams)
    pool = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), *pools)
    return joined, pool, jnp.concatenate(origins, 1)


def settled(loop):
    """The loop with the pool's captions in place of the beams, the best of all groups first."""
    pool = loop.pool
    order = jnp.argsort(-pool.score, axis=1, stable=True)
    return loop._replace(
        tokens=take(pool.tokens, order),
        log_prob=take(pool.log_prob, order),
        score=take(pool.score, order),
        token_scores=take(pool.token_scores, order),
        ended=take(pool.ended, order),
    )


def take(x: jax.Array, at: jax.Array) -> jax.Array:
    """x [B,M,...] at indices [B,N] -> [B,N,...]."""
    return jnp.take_along_axis(x, at.reshape(*at.shape, *[1] * (x.ndim - 2)), 1)


def reordered(state: Any, origins: jax.Array, branches: int) -> Any:
    """Caches of rows [B,K,branches] after each beam has become a continuation of another.

    Keys and values of the picture are the same for all of its beams, and stay where they are.
    """
    batch, beams = origins.shape

    def moved(path, x: jax.Array) -> jax.Array:
        if "cross_attention" in jax.tree_util.keystr(path):
            return x
        rows = x.reshape(batch, beams, branches, *x.shape[1:])
        return take(rows, origins).reshape(x.shape)

    return jax.tree_util.tree_map_with_path(moved, state)


def _continued(now: Beams, position, origin, token, best, log_p, o: Options) -> Beams:
    """The continuations [B,N] of beams [B,W] by one token each."""
    more = jax.tree.map(lambda x: take(x, origin), now)
    branches = jax.vmap(lambda p, w, t: p[w, :, t])(log_p, origin, token)  # [B,N,branches]
    kept = more.token_scores
    if o.keep_scores:
        kept = kept.at[:, :, position, : branches.shape[-1]].set(branches)
    return Beams(
        more.tokens.at[:, :, position + 1].set(token),
        best,
        more.log_prob + branches[..., 0],
        kept,
    )


def _finish(pool: Pool, more: Beams, ends, done, length, o: Options) -> Pool:
    """The pool of one group with those of the continuations that are done."""
    width = pool.score.shape[1]
    among = done & pool.open
    if o.early_stopping is True:
        among = among & ~pool.full.all(1, keepdims=True)
    length = jnp.maximum(length, 1)[:, None].astype(jnp.float32)
    score = jnp.where(among, more.score / length**o.length_penalty, LOW)
    both = jnp.concatenate([pool.score, score], 1)
    score, at = jax.lax.top_k(both, width)

    def merged(old: jax.Array, new: jax.Array) -> jax.Array:
        return take(jnp.concatenate([old, new], 1), at)

    return Pool(
        merged(pool.tokens, more.tokens),
        score,
        merged(pool.log_prob, more.log_prob),
        merged(pool.token_scores, more.token_scores),
        merged(pool.ended, ends),
        merged(pool.full, among),
        pool.open,
    )


def _open(pool: Pool, score, written, room, o: Options) -> jax.Array:
    """bool [B,1]: may the best beam under way still get into the pool?

    Its score would be highest at the length it has now, or, if lengths are rewarded and nothing is
    to be guessed ("never"), at the longest.
    """
    if o.early_stopping is True:
        pool = pool._replace(score=jnp.where(pool.full.all(1, keepdims=True), jnp.inf, pool.score))
    best_length = room if o.early_stopping == "never" and o.length_penalty > 0 else written
    length = jnp.maximum(best_length, 1)[:, None].astype(jnp.float32)
    best = score.max(1, keepdims=True) / length**o.length_penalty
    worst = jnp.where(pool.full, pool.score.min(1, keepdims=True), LOW)
    return jnp.any(best > worst, 1, keepdims=True)

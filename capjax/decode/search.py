"""The one decoding loop: greedy, sampled and beam captions, guided or not, over one cache.

A picture has K captions under way (beams or samples), and a guided one two rows for each,
[context; zeros], side by side: rows [B,K,2] flattened, so that all of a picture's stay on one
device when B is split. Each step is one call of the decoder; the guided choice is fed to both
branches (guiding, arXiv 2307.16686, section 3.1). A step is:

    logits of both branches -> guided scores -> (another model's say) -> what is forbidden
        -> greedy or drawn: each caption by itself    -> beams: the best K of a picture together

Keys and values of the picture are projected once and never move: the beams of a picture share them.
Prompts are read before the first step, as far as all of a batch have one (`prompts`).

Letters: B pictures, K captions of each, R = B K, T positions, H = T + 1, V vocabulary, P tokens of
a prompt, C context tokens, E their width.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import special_tokens
from capjax.decode import beams, prompts
from capjax.decode.companion import Companion
from capjax.decode.guidance import check_scale, guide
from capjax.decode.options import Options
from capjax.decode.phrases import Phrases, check_banned, check_room
from capjax.decode.scores import NEVER, flatten, forbid
from capjax.errors import UserError
from capjax.models.attention import kept_as


class Found(NamedTuple):
    """Captions of each picture; beams come with the best first."""

    tokens: jax.Array  # int32 [B,K,T]: the prompt, words, EOS, then PAD
    log_prob: jax.Array  # float32 [B,K]: of what was written, by the conditional branch alone
    score: jax.Array  # float32 [B,K]: what was searched for; of beams, by length
    truncated: jax.Array  # bool [B,K]: no EOS within the length
    token_scores: jax.Array | None  # float32 [B,K,T,2], on request: see `search`


class Loop(NamedTuple):
    """What the loop carries."""

    position: jax.Array  # int32: tokens after the first one, so far
    tokens: jax.Array  # int32 [B,K,H]; the one that is read first, too
    log_prob: jax.Array  # [B,K]
    score: jax.Array  # [B,K]
    ended: jax.Array  # bool [B,K]
    token_scores: jax.Array  # [B,K,T,2], or [B,K,0,2]
    state: Any  # the model's caches
    companion: Any  # the other model's
    pool: beams.Pool | None  # finished beams


def search(
    model: nn.Module,
    params,
    context: Any,
    guidance_scale=1.0,
    options: Options | None = None,
    *,
    rng: jax.Array | None = None,
    unconditional: Any = None,
    prompt: np.ndarray | None = None,
    prompt_length: np.ndarray | None = None,
    companion: Companion | None = None,
    phrases: Phrases | None = None,
) -> Found:
    """Captions of contexts, an array [B,C,E] or a tree of arrays that begin with B.

    guidance_scale: one number, or one a picture; where all are 1 the other branch is skipped: it
      would cancel out. unconditional: what that branch reads, [B,C,E] or [1,C,E] for all; unless
      given, what `without_picture` finds.
    rng: for sampling, a key or keys [B]; a picture's captions depend on its own key alone.
    prompt: int32 [B,P] that captions begin with, after BOS; of row b the first prompt_length[b]. In
      a vocabulary without BOS its first token is read in BOS's place, and does not come back.
    phrases: what captions must contain, for beams (`phrases.make`); as many beams as they have
      tokens, and some, let each be written where it fits best.
    With options.keep_scores, token_scores hold log p of each token written, by the conditional and
    by the unconditional branch (0 where that is skipped).

    Raises UserError for a scale or a prompt that cannot be, for sampling without a key, and for
    phrases that do not fit or are banned.
    """
    options = options or Options()
    batch = len(jax.tree.leaves(context)[0])
    scales = check_scale(guidance_scale, batch)
    needs = companion is not None and companion.needs_unconditional
    branches = 2 if np.any(scales != 1.0) or needs else 1
    if unconditional is None:
        unconditional = without_picture(model, params, context)
    steps = min(model.max_length - 1, _limit(options, prompt, model))
    first, prompt, lengths = prompts.begin(model, prompt, prompt_length, batch, steps)
    if phrases is not None:
        _check_phrases(phrases, first, prompt, lengths, steps, model, options)
    if options.sample and rng is None:
        raise UserError("sampling needs a key: give rng=jax.random.key(0), or one a picture")
    keys = None
    if options.sample:
        keys = (
            rng if rng.ndim else jax.vmap(lambda b: jax.random.fold_in(rng, b))(jnp.arange(batch))
        )
    weights = schedule_of(options.guidance_schedule, steps)
    how = (model, options, branches, steps, companion.static if companion else None)
    extra = companion.arrays(batch) if companion else None
    inputs = (context, unconditional, jnp.asarray(scales), weights, first, prompt, lengths)
    return _search(how, params, inputs, keys, extra, phrases)


def without_picture(model: nn.Module, params, context: Any) -> Any:
    """What stands for no picture, [1,C,E] for contexts [B,C,E]: zeros, or what the model learned.

    One row stands for all: what reads no picture is alike for every picture.
    """
    if getattr(model, "learned_null", False):
        null = model.apply({"params": params}, method="null_context")
        return null.astype(context.dtype)[None]
    return jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), context)


def schedule_of(weights: tuple[float, ...], steps: int) -> jax.Array:
    """[T]: how much of the guidance holds at each position, the last weight for all that follow.

    The scale at position t is 1 + (gamma - 1) w_t: with w = 0 there is no guidance, with 1 all.
    """
    given = list(weights)[:steps] or [1.0]
    return jnp.asarray(given + given[-1:] * (steps - len(given)), jnp.float32)


def _check_phrases(
    phrases: Phrases,
    first: np.ndarray,
    prompt: np.ndarray,
    lengths: np.ndarray,
    steps: int,
    model: nn.Module,
    options: Options,
) -> None:
    if options.num_beams == 1:
        raise UserError(
            "captions that must contain phrases are searched for with beams: give num_beams of 2 "
            "or more"
        )
    if len(phrases.tokens) != len(prompt):
        raise UserError(
            f"there are phrases for {len(phrases.tokens)} captions of {len(prompt)}: give some, or "
            "none, for each"
        )
    check_banned(phrases, options.banned)
    if special_tokens.of(model).bos is None:
        prompt, lengths, steps = np.column_stack([first, prompt]), lengths + 1, steps + 1
    check_room(phrases, prompt, lengths, steps)


def _limit(options: Options, prompt: np.ndarray | None, model: nn.Module) -> int:
    """T, where the options bound it: the prompt does not count."""
    if options.max_length is None:
        return model.max_length - 1
    return options.max_length + (0 if prompt is None else prompt.shape[1])


@functools.partial(jax.jit, static_argnums=0)
def _search(how, params, inputs, keys, extra, phrases) -> Found:
    model, o, branches, steps, static = how
    context, unconditional, scales, weights, first, prompt, lengths = inputs
    batch, per_picture = len(first), o.per_picture
    special = special_tokens.of(model)
    # Guidance must not extrapolate to what is no word.
    never = jnp.array(special.never_written, jnp.int32)
    possible = jnp.zeros(model.vocab_size).at[never].set(NEVER)

    def decoder(method, *args):
        return model.apply({"params": params}, *args, method=method)

    def both(with_picture, without):
        """[B,...] of each branch, of the second perhaps [1,...] -> [B branches,...]."""
        without = jnp.broadcast_to(without, with_picture.shape)
        return jnp.stack([with_picture, without][:branches], 1).reshape(-1, *without.shape[1:])

    def spread(x):
        """[B branches,...] -> [B K branches,...]."""
        of_picture = x.reshape(batch, 1, branches, *x.shape[1:])
        wide = jnp.broadcast_to(of_picture, (batch, per_picture, *of_picture.shape[2:]))
        return wide.reshape(-1, *x.shape[1:])

    def logits_of(loop: Loop):
        """Of both branches [B,K,branches,V], and the caches behind them."""
        last = jax.lax.dynamic_index_in_dim(loop.tokens, loop.position, 2, keepdims=False)
        fed = jnp.repeat(last.reshape(-1), branches)
        logits, state = decoder("decode_step", fed, loop.position, loop.state)
        return logits.reshape(batch, per_picture, branches, -1), last, state

    def step(loop: Loop) -> Loop:
        logits, last, state = logits_of(loop)
        log_p = jax.nn.log_softmax(logits)
        scores = conditional = logits[:, :, 0]
        if branches == 2:
            scale = 1 + (scales - 1) * weights[loop.position]
            scores = guide(conditional, logits[:, :, 1], scale[:, None])
        told = loop.companion
        if static is not None:
            scores, told = static.combine(extra, told, last, loop.position, logits, scores)
        if o.num_beams > 1:
            scores = jax.nn.log_softmax(scores)
        scores = scores + possible
        scores = forbid(
            scores.reshape(batch * per_picture, -1),
            loop.tokens.reshape(batch * per_picture, -1),
            loop.position + 1,
            loop.position - jnp.repeat(lengths, per_picture),
            special.eos,
            o,
        ).reshape(scores.shape)
        forced = prompts.forced(prompt, lengths, loop.position)
        if o.num_beams > 1:
            more, pool, origins = beams.step(
                loop, scores, log_p, forced, lengths, phrases, special, o
            )
            return loop._replace(
                position=loop.position + 1,
                pool=pool,
                state=beams.reordered(state, origins, branches),
                companion=beams.reordered(told, origins, 1),
                **more._asdict(),
            )
        choice, score = _each(scores, keys, loop, o)
        choice = jnp.where(forced[0][:, None], forced[1][:, None], choice)
        choice = jnp.where(loop.ended, special.pad, choice)
        chosen = jnp.take_along_axis(log_p, choice[:, :, None, None], -1)[..., 0]
        counts = ~loop.ended
        kept = loop.token_scores
        if o.keep_scores:
            kept = kept.at[:, :, loop.position, :branches].set(
                jnp.where(counts[..., None], chosen, 0)
            )
        return loop._replace(
            position=loop.position + 1,
            tokens=loop.tokens.at[:, :, loop.position + 1].set(choice),
            log_prob=loop.log_prob + jnp.where(counts, chosen[:, :, 0], 0),
            score=loop.score + jnp.where(counts & ~forced[0][:, None], score(choice), 0),
            ended=loop.ended | ((choice == special.eos) & ~forced[0][:, None]),
            token_scores=kept,
            state=state,
            companion=told,
        )

    # Each context is read once, whatever the number of captions that begin with it; the caches have
    # room for the captions that are asked for.
    started = [decoder("start_decoding", x, steps) for x in (context, unconditional)[:branches]]
    state = kept_as(o.cache_dtype, jax.tree.map(both, started[0], started[-1]))
    begun = prompts.Begun(jnp.int32(0), state, jnp.zeros((batch, 0, branches)))
    if prompts.in_one_pass(prompt, model, *([static.model] if static else [])):
        begun = prompts.read(decoder, state, first, prompt, lengths)
    shape, size = (batch, per_picture), begun.log_p.shape[1]
    empty = jnp.full((*shape, steps + 1), special.pad, jnp.int32)
    tokens = empty.at[:, :, 0].set(first[:, None])
    read = jnp.where(jnp.arange(size) < begun.position, prompt[:, :size], special.pad)
    no_scores = jnp.zeros((*shape, steps if o.keep_scores else 0, 2))
    loop = Loop(
        position=begun.position,
        tokens=tokens.at[:, :, 1 : size + 1].set(read[:, None]),
        log_prob=jnp.broadcast_to(begun.log_p[:, None, :, 0].sum(-1), shape),
        score=beams.first_scores(batch, o) if o.num_beams > 1 else jnp.zeros(shape),
        ended=jnp.zeros(shape, bool),
        token_scores=no_scores.at[:, :, :size, :branches].set(begun.log_p[:, None])
        if o.keep_scores
        else no_scores,
        state=jax.tree.map(spread, begun.state),
        companion=static.start(extra, per_picture, steps, prompt[:, :size], o.cache_dtype)
        if static is not None
        else None,
        pool=beams.empty_pool(empty, no_scores, o) if o.num_beams > 1 else None,
    )

    def goes_on(loop: Loop) -> jax.Array:
        more = loop.pool.open if o.num_beams > 1 else ~loop.ended
        return (loop.position < steps) & jnp.any(more)

    loop = jax.lax.while_loop(goes_on, step, loop)
    if o.num_beams > 1:
        loop = beams.settled(loop)
    kept = loop.token_scores if o.keep_scores else None
    return Found(loop.tokens[:, :, 1:], loop.log_prob, loop.score, ~loop.ended, kept)


def _each(scores: jax.Array, keys: jax.Array | None, loop: Loop, o: Options):
    """(the next token of each caption [B,K], a function that gives its score)."""
    if o.sample:
        scores = flatten(scores, o)
        drawn = jax.vmap(lambda key: jax.random.fold_in(key, loop.position))(keys)
        choice = jax.vmap(lambda key, rows: jax.random.categorical(key, rows))(drawn, scores)
    else:
        choice = jnp.argmax(scores, -1)
    log_p = jax.nn.log_softmax(scores)

    def score(choice: jax.Array) -> jax.Array:
        return jnp.take_along_axis(log_p, choice[..., None], -1)[..., 0]

    return choice.astype(jnp.int32), score

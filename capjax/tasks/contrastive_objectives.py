"""What a contrastive loss makes of a tile of logits, so that it can be computed block by block.

The objectives of `capjax.parallel.contrastive.blockwise`: running sums on the way forward, the
slope of the loss on the way back. The formulas themselves, over whole matrices, are in
`capjax.tasks.contrastive_losses`; both must give the same numbers.

Letters: R rows and C columns of a tile, N either of them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from capjax.parallel.contrastive import PAIRED, Relation, Side

_LOW = -1e30  # below every logit, and finite: inf - inf is not a number


class Seen(NamedTuple):
    """What a row knows of the columns that it has met, or a column of the rows: float32 [N]."""

    best_match: jax.Array  # the highest logit of a match
    best_other: jax.Array  # and of what is none
    exp_sum: jax.Array  # sum of exp(logit - the higher of the two)
    match_sum: jax.Array  # sum of the logits of matches
    matches: jax.Array  # how many
    total: jax.Array  # sum of all logits; only with label smoothing
    count: jax.Array  # how many; only with label smoothing


class Anchors(NamedTuple):
    """What the slope of the logits of a row, or of a column, depends on: float32 [N].

    Rows and columns that have no loss of their own have (inf, 0, 0).
    """

    log_sum: jax.Array  # log of the sum of exp(logit)
    match_share: jax.Array  # 1 / number of matches
    share: jax.Array  # 1 / number of those that it is compared with; only with label smoothing


class Softmax(NamedTuple):
    """Sum of cross-entropies of the matches among rows and among columns, times `weight`."""

    weight: float
    smoothing: float

    def start(self, rows: int, columns: int) -> tuple[Seen, Seen]:
        return tuple(
            Seen(jnp.full(n, _LOW), jnp.full(n, _LOW), *[jnp.zeros(n)] * 5) for n in (rows, columns)
        )

    def meet(self, met: tuple[Seen, Seen], logits: jax.Array, relation: Relation):
        rows, columns = met
        return (
            self._look(rows, logits, relation.match, relation.in_row, 1),
            self._look(columns, logits, relation.match, relation.in_column, 0),
        )

    def _look(self, seen: Seen, logits, match, compared, axis: int) -> Seen:
        best_match, best_other = _best(seen, logits, match, compared, axis)
        peak = jnp.maximum(best_match, best_other)
        before = seen.exp_sum * jnp.exp(jnp.maximum(seen.best_match, seen.best_other) - peak)
        powers = jnp.exp(logits - jnp.expand_dims(peak, axis))
        total, count = seen.total, seen.count
        if self.smoothing:
            total += jnp.sum(jnp.where(compared, logits, 0), axis)
            count += jnp.sum(compared, axis)
        return Seen(
            best_match,
            best_other,
            before + jnp.sum(jnp.where(compared, powers, 0), axis),
            seen.match_sum + jnp.sum(jnp.where(match, logits, 0), axis),
            seen.matches + jnp.sum(match, axis),
            total,
            count,
        )

    def close(self, met: tuple[Seen, Seen], rows: Side, columns: Side):
        row_loss, row_anchors = self._close(met[0], rows.role == PAIRED)
        column_loss, column_anchors = self._close(met[1], columns.role == PAIRED)
        loss = self.weight * (row_loss + column_loss)
        return loss, _right(met[0], rows), (row_anchors, column_anchors)

    def _close(self, seen: Seen, paired: jax.Array) -> tuple[jax.Array, Anchors]:
        log_sum = jnp.maximum(seen.best_match, seen.best_other) + jnp.log(seen.exp_sum)
        # At least 1, for the sake of those that have no loss.
        matches, count = jnp.maximum(seen.matches, 1), jnp.maximum(seen.count, 1)
        losses = log_sum - (1 - self.smoothing) * seen.match_sum / matches
        if self.smoothing:
            losses -= self.smoothing * seen.total / count
        anchors = Anchors(
            jnp.where(paired, log_sum, jnp.inf),
            jnp.where(paired, 1 / matches, 0),
            jnp.where(paired, 1 / count, 0),
        )
        return jnp.sum(jnp.where(paired, losses, 0)), anchors

    def slope(self, anchors: tuple[Anchors, Anchors], logits, relation: Relation) -> jax.Array:
        rows, columns = Anchors(*[x[:, None] for x in anchors[0]]), anchors[1]
        row, column = jnp.exp(logits - rows.log_sum), jnp.exp(logits - columns.log_sum)
        if self.smoothing:
            row -= self.smoothing * rows.share
            column -= self.smoothing * columns.share
        slope = jnp.where(relation.in_row, row, 0) + jnp.where(relation.in_column, column, 0)
        target = (1 - self.smoothing) * (rows.match_share + columns.match_share)
        return self.weight * (slope - jnp.where(relation.match, target, 0))


class SeenBySigmoid(NamedTuple):
    """What a row knows of the columns that it has met: float32 [R]."""

    best_match: jax.Array
    best_other: jax.Array
    loss: jax.Array


class Sigmoid(NamedTuple):
    """Sum over all that are compared of -log sigmoid(+-logit), + for matches, times `weight`.

    The columns have nothing to remember, and the slope of a logit depends on itself alone.
    """

    weight: float

    def start(self, rows: int, columns: int) -> tuple[SeenBySigmoid, tuple[()]]:
        return SeenBySigmoid(jnp.full(rows, _LOW), jnp.full(rows, _LOW), jnp.zeros(rows)), ()

    def meet(self, met: tuple[SeenBySigmoid, tuple[()]], logits, relation: Relation):
        rows, columns = met
        losses = jax.nn.softplus(jnp.where(relation.match, -logits, logits))
        compared = relation.in_row | relation.in_column
        best = _best(rows, logits, relation.match, relation.in_row, 1)
        return SeenBySigmoid(*best, rows.loss + jnp.sum(jnp.where(compared, losses, 0), 1)), columns

    def close(self, met: tuple[SeenBySigmoid, tuple[()]], rows: Side, columns: Side):
        return self.weight * jnp.sum(met[0].loss), _right(met[0], rows), ((), ())

    def slope(self, anchors: tuple[tuple[()], tuple[()]], logits, relation: Relation) -> jax.Array:
        slope = self.weight * (jax.nn.sigmoid(logits) - relation.match)
        return jnp.where(relation.in_row | relation.in_column, slope, 0)


def _best(seen: Seen | SeenBySigmoid, logits, match, compared, axis: int):
    """(best_match, best_other) after a tile."""
    best_match = jnp.max(jnp.where(match, logits, _LOW), axis)
    best_other = jnp.max(jnp.where(compared & ~match, logits, _LOW), axis)
    return jnp.maximum(seen.best_match, best_match), jnp.maximum(seen.best_other, best_other)


def _right(seen: Seen | SeenBySigmoid, rows: Side) -> jax.Array:
    """How many paired rows have a match as their first choice."""
    return jnp.sum((rows.role == PAIRED) & (seen.best_match > seen.best_other))

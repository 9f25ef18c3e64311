"""Every picture of a batch meets every text, in blocks: no array ever holds B x B logits.

Rows (pictures) and columns (texts) are split over the devices of the mesh in context. A device
keeps its rows and passes its columns round a ring. What a row has learned of the columns it met
stays with the row, what a column has learned of the rows travels with the column; so each logit
is computed once and serves both directions. Within a device, `block` rows at a time meet the
columns at hand. The backward pass goes round again and computes the logits anew (a custom_vjp:
else every tile would be kept), which makes four products of [B,E] by [E,B] instead of three.

Memory of a device with L = B / devices pairs: a few arrays [L,E] and tiles of block x L logits.
Gathering all columns on each device instead would save no arithmetic and hold [B,E] twice, for
the columns and for their gradients: at B = 1M, E = 1024, 8 GiB on each device.

On one device, or without a mesh in context, the ring is one device long. What the devices or the
block do not divide is padded with rows that count nowhere: the result is that of the whole batch.

What is computed of the logits is an objective, an immutable object (it is a static argument) of

    start(rows, columns) -> met                 what they know before; `met` = (rows', columns')
    meet(met, logits, relation) -> met          after a tile [R,C]
    close(met, rows, columns) -> (loss, right, anchors)    sums over the pairs;
                                                anchors = (rows', columns') for the backward pass
    slope(anchors, logits, relation) -> [R,C]   d loss / d logits

see capjax.tasks.contrastive_objectives.

Letters: B pairs, E embedding, R rows and C columns (pairs, extras, padding), N either of them.
Raises `UserError` for a block below 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from capjax.errors import UserError
from capjax.parallel.mesh import BATCH_AXES

# Roles: nobody; one of the B pairs; a negative for the pairs of the other side.
PADDING, PAIRED, EXTRA = 0, 1, 2


class Side(NamedTuple):
    """The pictures, or the texts, of a batch."""

    vectors: jax.Array  # float [N,E]
    role: jax.Array  # int32 [N]
    key: jax.Array  # int32 [N]: a paired picture and a paired text of one key are a match
    group: jax.Array | None = None  # int32 [N]: pairs of one group that do not match never meet


class Relation(NamedTuple):
    """How each row stands to each column, bool [R,C]."""

    match: jax.Array
    in_row: jax.Array  # the row is of a pair, and the column is one that it must tell apart
    in_column: jax.Array  # and the reverse


def relate(rows: Side, columns: Side) -> Relation:
    """Who matches, and who is compared with whom."""
    paired_row, paired_column = (rows.role == PAIRED)[:, None], columns.role == PAIRED
    match = paired_row & paired_column & (rows.key[:, None] == columns.key)
    in_row = paired_row & (columns.role != PADDING)
    in_column = paired_column & (rows.role != PADDING)[:, None]
    if rows.group is not None:
        apart = paired_row & paired_column & (rows.group[:, None] == columns.group) & ~match
        in_row, in_column = in_row & ~apart, in_column & ~apart
    return Relation(match, in_row, in_column)


def blockwise(
    objective: Any, rows: Side, columns: Side, scale: jax.Array, bias: jax.Array, block: int
) -> tuple[jax.Array, jax.Array]:
    """(loss, number of rows that choose right), with logits = scale * rows @ columns.T + bias.

    Float32; differentiable (once, in reverse) in the vectors, the scale and the bias.
    """
    if block < 1:
        raise UserError(f"block={block}: a block is of 1 row or more")
    axes = ring_axes()
    devices = math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)
    # Blocks of one size with as little padding as can be: 10 rows by 8 are two blocks of 5.
    rows_each = -(-len(rows.vectors) // devices)
    blocks = -(-rows_each // block)
    rows = _pad(rows, devices * blocks * -(-rows_each // blocks))
    columns = _pad(columns, devices * -(-len(columns.vectors) // devices))
    known = (rows._replace(vectors=None), columns._replace(vectors=None))
    scale, bias = (jnp.asarray(x, jnp.float32) for x in (scale, bias))
    return _blockwise((objective, axes, blocks), rows.vectors, columns.vectors, scale, bias, known)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blockwise(static, rows, columns, scale, bias, known):
    return _forward(static, rows, columns, scale, bias, known)[0]


def _forward(static, rows, columns, scale, bias, known):
    objective, axes, blocks = static

    def local(rows: Side, columns: Side, scale, bias):
        def hop(row_met, travelling):
            def one(column_met, inputs):
                tile_rows, tile_met = inputs
                logits = _logits(tile_rows, around, scale, bias)
                relation = relate(tile_rows, around)
                tile_met, column_met = objective.meet((tile_met, column_met), logits, relation)
                return column_met, tile_met

            around, column_met = travelling
            column_met, row_met = jax.lax.scan(one, column_met, (in_blocks, row_met))
            return row_met, (around, column_met)

        in_blocks = _split(rows, blocks)
        row_met, column_met = objective.start(len(rows.vectors), len(columns.vectors))
        row_met, (_, column_met) = _ring(axes, hop, _split(row_met, blocks), (columns, column_met))
        loss, right, anchors = objective.close((_join(row_met), column_met), rows, columns)
        return _sum((loss, right), axes), anchors

    inputs = (known[0]._replace(vectors=rows), known[1]._replace(vectors=columns), scale, bias)
    split, whole = PartitionSpec(axes), PartitionSpec()
    results, anchors = _on_devices(
        local, axes, in_specs=(split, split, whole, whole), out_specs=(whole, split)
    )(*inputs)
    return results, (inputs, anchors)


def _backward(static, saved, cotangents):
    objective, axes, blocks = static
    upstream = cotangents[0]  # the number of right choices has no gradient

    def local(rows: Side, columns: Side, scale, bias, anchors, upstream):
        def hop(gradients, travelling):
            def one(carry, inputs):
                d_columns, d_bias = carry
                tile_rows, tile_anchors, d_rows = inputs
                logits = _logits(tile_rows, around, scale, bias)
                relation = relate(tile_rows, around)
                slope = objective.slope((tile_anchors, column_anchors), logits, relation)
                d_rows += _product(slope, around.vectors)
                d_columns += _product(slope.T, tile_rows.vectors)
                return (d_columns, d_bias + jnp.sum(slope)), d_rows

            d_rows, d_bias = gradients
            around, column_anchors, d_columns = travelling
            (d_columns, d_bias), d_rows = jax.lax.scan(
                one, (d_columns, d_bias), (in_blocks, row_anchors, d_rows)
            )
            return (d_rows, d_bias), (around, column_anchors, d_columns)

        in_blocks = _split(rows, blocks)
        row_anchors, column_anchors = _split(anchors[0], blocks), anchors[1]
        zeros = [jnp.zeros(side.vectors.shape, jnp.float32) for side in (rows, columns)]
        (d_rows, d_bias), (_, _, d_columns) = _ring(
            axes,
            hop,
            (_split(zeros[0], blocks), jnp.zeros(())),
            (columns, column_anchors, zeros[1]),
        )
        d_rows = _join(d_rows)
        # The sum over all logits of slope times cosine, without another pass over them.
        d_scale = jnp.sum(d_rows * rows.vectors)
        d_scale, d_bias = _sum((d_scale * upstream, d_bias * upstream), axes)
        d_rows, d_columns = (
            (scale * upstream * d).astype(side.vectors.dtype)
            for d, side in ((d_rows, rows), (d_columns, columns))
        )
        return d_rows, d_columns, d_scale, d_bias

    split, whole = PartitionSpec(axes), PartitionSpec()
    gradients = _on_devices(
        local,
        axes,
        in_specs=(split, split, whole, whole, split, whole),
        out_specs=(split, split, whole, whole),
    )(*saved[0], saved[1], upstream)
    return *gradients, None  # roles, keys and groups are integers


_blockwise.defvjp(_forward, _backward)


def _logits(rows: Side, columns: Side, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """float32 [R,C]."""
    return scale * _product(rows.vectors, columns.vectors.T) + bias


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


def _ring(axes: tuple[str, ...], hop: Callable, still: Any, travelling: Any) -> tuple[Any, Any]:
    """(still, travelling) after `hop` was called on each device's `travelling`; it is home again.

    hop(still, travelling) -> (still, travelling)
    """
    if not axes:
        return hop(still, travelling)
    devices = jax.lax.axis_size(axes)
    neighbours = [(i, (i + 1) % devices) for i in range(devices)]

    def one(carry, _):
        still, travelling = hop(*carry)
        passed = jax.tree.map(lambda x: jax.lax.ppermute(x, axes, neighbours), travelling)
        return (still, passed), None

    return jax.lax.scan(one, (still, travelling), length=devices)[0]


def ring_axes() -> tuple[str, ...]:
    """The axes of the mesh in context that split the batch."""
    shape = jax.sharding.get_abstract_mesh().shape
    return tuple(axis for axis in BATCH_AXES if shape.get(axis, 1) > 1)


def _on_devices(function: Callable, axes: tuple[str, ...], in_specs, out_specs) -> Callable:
    """`function` on each device's part of its arguments; itself if there is one device."""
    if not axes:
        return function
    # What is replicated was summed over all axes; nothing is differentiated through.
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _sum(values: Any, axes: tuple[str, ...]) -> Any:
    return jax.lax.psum(values, axes) if axes else values


def _pad(side: Side, size: int) -> Side:
    """`side` with rows of zeros at its end, whose role is PADDING."""
    missing = size - len(side.vectors)
    if not missing:
        return side
    return jax.tree.map(lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)), side)


def _split(tree: Any, blocks: int) -> Any:
    """Arrays [R,...] -> [blocks, R / blocks, ...]."""
    return jax.tree.map(lambda x: x.reshape(blocks, x.shape[0] // blocks, *x.shape[1:]), tree)


def _join(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

"""Rows of tokens in few lengths: short captions are not padded to the longest one there may be.

Every shape that a compiled function meets is compiled once, so lengths are rounded up to a short
list of bucket lengths, such as 16, 32, 64. Only for models that give padding no influence (masks,
or causal attention read at EOS): one that was trained to see 64 places must see 64.

B: rows. L: tokens of a row. N: texts. All functions are pure.
Raises `UserError` for buckets that are not rising, or too short for a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from capjax.errors import UserError


def check_buckets(buckets: Sequence[int]) -> tuple[int, ...]:
    """The lengths as a tuple; UserError unless they rise and are positive."""
    lengths = tuple(int(length) for length in buckets)
    if not lengths or lengths[0] < 1 or any(np.diff(lengths) <= 0):
        raise UserError(
            f"the bucket lengths {list(lengths)} must be positive and rise, such as 16, 32, 64"
        )
    return lengths


def text_lengths(tokens: np.ndarray, eos: int) -> np.ndarray:
    """int [B,L] -> int64 [B]: the tokens up to the first EOS and with it, L where there is none.

    EOS, not padding, ends a text: some vocabularies pad with EOS, and some have padding as a word.
    """
    is_end = tokens == eos
    return np.where(is_end.any(axis=1), is_end.argmax(axis=1) + 1, tokens.shape[1])


def bucket_of(lengths: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """int [N] -> int64 [N]: the number of the shortest bucket that holds each text."""
    limits = check_buckets(buckets)
    lengths = np.asarray(lengths)
    if len(lengths) and lengths.max() > limits[-1]:
        raise UserError(
            f"a text of {lengths.max()} tokens is longer than the longest bucket, {limits[-1]}: "
            "add a longer one"
        )
    return np.searchsorted(limits, lengths, side="left")


def to_bucket(tokens: np.ndarray, eos: int, pad: int, buckets: Sequence[int]) -> np.ndarray:
    """int [B,L] -> int [B,L'], L' the shortest bucket that holds the longest of the rows.

    What is cut off or added lies behind the EOS of every row.
    """
    limits = check_buckets(buckets)
    rows, width = tokens.shape
    longest = text_lengths(tokens, eos).max(initial=1)
    length = limits[int(bucket_of(np.array([longest]), limits)[0])]
    if length <= width:
        return tokens[:, :length]
    return np.concatenate([tokens, np.full((rows, length - width), pad, tokens.dtype)], axis=1)


def batches(
    lengths: Sequence[int] | np.ndarray,
    buckets: Sequence[int],
    batch_size: int | Sequence[int],
    drop_rest: bool = False,
) -> Iterator[tuple[int, np.ndarray]]:
    """(bucket length, int64 [B] numbers of texts) for N texts, each text once.

    Within a bucket the texts keep their order. A batch is given out when its last text is met, so
    batches are ordered by their last text; then, unless `drop_rest`, what is left in each bucket,
    from the shortest bucket to the longest, as batches that are not full. `batch_size`: one for
    all, or one a bucket, so that long texts come in smaller batches.
    """
    limits = check_buckets(buckets)
    one = isinstance(batch_size, int | np.integer)
    sizes = [int(batch_size)] * len(limits) if one else [int(size) for size in batch_size]
    if len(sizes) != len(limits) or min(sizes) < 1:
        raise UserError(
            f"batch_size={batch_size} must be positive: one number, or one for each of the "
            f"{len(limits)} buckets"
        )
    waiting: list[list[int]] = [[] for _ in limits]
    for text, bucket in enumerate(bucket_of(np.asarray(lengths), limits)):
        waiting[bucket].append(text)
        if len(waiting[bucket]) == sizes[bucket]:
            yield limits[bucket], np.array(waiting[bucket], np.int64)
            waiting[bucket] = []
    if not drop_rest:
        for length, texts in zip(limits, waiting, strict=True):
            if texts:
                yield length, np.array(texts, np.int64)

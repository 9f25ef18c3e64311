"""Buckets: few shapes, every text once, order within a bucket, nothing before EOS touched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.data.buckets import batches, bucket_of, text_lengths, to_bucket
from capjax.errors import UserError

EOS = 2


def rows_of(lengths, width, pad):
    """Rows 5 5 .. 5 EOS pad .. pad."""
    rows = np.full((len(lengths), width), pad, np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[: length - 1] = 5
        row[length - 1] = EOS
    return rows


@pytest.mark.parametrize("pad", [0, EOS])
def test_a_text_ends_at_its_first_eos_even_if_padding_is_eos(pad):
    assert text_lengths(rows_of([3, 8, 1], 8, pad), EOS).tolist() == [3, 8, 1]
    assert text_lengths(np.full((1, 8), 5), EOS).tolist() == [8]


def test_each_text_takes_the_shortest_bucket_that_holds_it():
    assert bucket_of(np.array([1, 4, 5, 8, 9, 16]), (4, 8, 16)).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("pad", [0, EOS])
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_batch_is_cut_or_padded_to_a_bucket_behind_eos(pad, lengths):
    rows = rows_of(lengths, 12, pad)
    cut = to_bucket(rows, EOS, pad, (4, 8, 16))
    assert cut.shape[1] == min(b for b in (4, 8, 16) if b >= max(lengths))
    assert cut.dtype == rows.dtype
    assert text_lengths(cut, EOS).tolist() == lengths
    for row, short, length in zip(rows, cut, lengths, strict=True):
        np.testing.assert_array_equal(short[:length], row[:length])
        assert (short[length:] == pad).all()


@given(st.lists(st.integers(1, 16), max_size=40), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_every_text_comes_once_in_its_own_bucket_and_in_order(lengths, batch_size):
    buckets = (4, 8, 16)
    found = list(batches(lengths, buckets, batch_size))
    assert sorted(i for _, texts in found for i in texts) == list(range(len(lengths)))
    for limit in buckets:
        own = [i for length, texts in found if length == limit for i in texts]
        assert own == sorted(own)
        assert all(min(b for b in buckets if b >= lengths[i]) == limit for i in own)
    full = [texts for _, texts in found if len(texts) == batch_size]
    rest = found[len(full) :]
    assert [t[-1] for t in full if len(t)] == sorted(t[-1] for t in full)
    assert all(len(texts) < batch_size for _, texts in rest)
    assert [length for length, _ in rest] == sorted({length for length, _ in rest})
    dropped = list(batches(lengths, buckets, batch_size, drop_rest=True))
    assert [t.tolist() for _, t in dropped] == [t.tolist() for t in full]


def test_a_small_case_by_hand():
    found = [(n, t.tolist()) for n, t in batches([3, 9, 4, 2, 7, 10], (4, 8, 16), 2)]
    assert found == [(4, [0, 2]), (16, [1, 5]), (4, [3]), (8, [4])]


def test_long_texts_may_come_in_smaller_batches():
    found = [(n, len(t)) for n, t in batches([3] * 4 + [9] * 3, (4, 16), (4, 1))]
    assert found == [(4, 4), (16, 1), (16, 1), (16, 1)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bucket_of(np.array([17]), (4, 16)), "17 tokens is longer than the longest bucket"),
        (lambda: bucket_of(np.array([1]), (8, 4)), r"\[8, 4\] must be positive and rise"),
        (lambda: bucket_of(np.array([1]), ()), "must be positive and rise"),
        (lambda: list(batches([1], (4, 8), (2,))), "one for each of the 2 buckets"),
        (lambda: list(batches([1], (4, 8), 0)), "must be positive"),
    ],
)
def test_impossible_buckets_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()

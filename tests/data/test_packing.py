"""Packing: nothing lost, nothing mixed, first fit in stream order, resumed to the very next row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.data.packing import PackedRows, pack, same_text, unpack
from capjax.errors import UserError

TEXTS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=10), max_size=30)


@given(TEXTS, st.integers(10, 17))
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_nothing_is_mixed(texts, length):
    packed = pack(texts, length, pad=0)
    assert sorted(t.tolist() for t in unpack(packed.tokens, packed.segments)) == sorted(texts)
    for text, row, start in zip(texts, packed.row_of, packed.start_of, strict=True):
        place = slice(start, start + len(text))
        assert packed.tokens[row, place].tolist() == text
        assert packed.positions[row, place].tolist() == list(range(len(text)))
        assert len(set(packed.segments[row, place].tolist())) == 1
    empty = packed.segments == 0
    assert (packed.tokens[empty] == 0).all()
    assert (packed.positions[empty] == 0).all()
    assert (~empty).sum() == sum(map(len, texts))


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_each_text_goes_into_the_first_row_with_room(texts):
    """Checked with plain lists; so no two rows of a block are both half empty."""
    rows: list[int] = []
    packed = pack(texts, 10)
    for text, row in zip(texts, packed.row_of, strict=True):
        expected = next((i for i, used in enumerate(rows) if used + len(text) <= 10), len(rows))
        assert row == expected
        if expected == len(rows):
            rows.append(0)
        rows[expected] += len(text)
    assert len(packed) == len(rows)
    assert sum(used <= 5 for used in rows) <= 1


def test_a_small_case_by_hand():
    packed = pack([[1, 2, 3], [4, 5, 6], [7], [8, 9]], 5, pad=-1)
    assert packed.tokens.tolist() == [[1, 2, 3, 7, -1], [4, 5, 6, 8, 9]]
    assert packed.segments.tolist() == [[1, 1, 1, 2, 0], [1, 1, 1, 2, 2]]
    assert packed.positions.tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 0, 1]]
    assert packed.row_of.tolist() == [0, 1, 0, 1]
    assert packed.filled == 0.9


def test_attention_stays_within_a_text():
    mask = same_text(np.array([[1, 1, 2, 0]]))
    assert mask[0].tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, False],
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [([[1], []], "text 1 to pack has no tokens"), ([[1] * 6], "6 tokens and does not fit")],
)
def test_texts_that_cannot_be_packed(texts, message):
    with pytest.raises(UserError, match=message):
        pack(texts, 5)


def text_at(position):
    """A stream without an end; its token says where it comes from."""
    return [position + 1] * int(np.random.default_rng(position).integers(1, 8))


def as_lists(rows):
    return [[part.tolist() for part in row] for row in rows]


def take(stream, count):
    return as_lists(next(stream) for _ in range(count))


def test_a_stream_resumes_to_the_very_next_row():
    whole = take(PackedRows(text_at, 16, block=20), 40)
    for stop in (0, 1, 7, 8, 25):
        stream = PackedRows(text_at, 16, block=20)
        take(stream, stop)
        resumed = PackedRows(text_at, 16, block=20)
        resumed.restore(stream.state())
        assert take(resumed, 40 - stop) == whole[stop:]


def test_a_block_holds_its_own_texts_and_depends_on_nothing_else():
    stream = PackedRows(text_at, 16, block=20)
    third = stream.rows_of(3)
    assert set(third.tokens[third.segments > 0].tolist()) == set(range(61, 81))
    np.testing.assert_array_equal(PackedRows(text_at, 16, block=20).rows_of(3).tokens, third.tokens)


def test_processes_share_the_blocks():
    streams = [PackedRows(text_at, 16, 20, process_index=p, process_count=2) for p in range(2)]
    alone = PackedRows(text_at, 16, 20)
    for stream, blocks in zip(streams, ((0, 2), (1, 3)), strict=True):
        expected = [alone.rows_of(b) for b in blocks]
        rows = [r for p in expected for r in zip(p.tokens, p.segments, p.positions, strict=True)]
        assert take(stream, len(rows)) == as_lists(rows)


def test_captions_fill_most_of_a_row():
    """Lengths as of captions, 8 to 20 tokens, in rows of 64: padded alone they fill a fifth."""
    sizes = np.random.default_rng(0).integers(8, 21, 512)
    packed = pack([[1] * size for size in sizes], 64)
    assert packed.filled > 0.93
    assert packed.filled * len(packed) * 64 == pytest.approx(sizes.sum())


def test_a_block_without_texts_is_refused():
    with pytest.raises(UserError, match="a block of 0 texts"):
        PackedRows(text_at, 16, block=0)

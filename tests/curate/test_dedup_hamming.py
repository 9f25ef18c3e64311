"""Search in Hamming distance against every pair compared, and the groups made of near pairs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.curate.dedup import hamming
from capjax.curate.dedup.groups import group, group_hashes, match_hashes
from capjax.errors import UserError


def planted(count=300, seed=0):
    """Random hashes, some of them followed by copies with 0 to 12 bits changed, then shuffled."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    copies = []
    for value in hashes[: count // 3]:
        bits = rng.choice(64, int(rng.integers(0, 13)), replace=False)
        copies.append(int(value) ^ sum(1 << int(bit) for bit in bits))
    return rng.permutation(np.concatenate([hashes, np.array(copies, np.uint64)]))


def apart(a, b):
    return np.bitwise_count(a[:, None] ^ b[None])


@pytest.mark.parametrize("distance", [0, 1, 2, 3, 5, 8, 11, 16, 22, 63])
def test_pairs_are_those_of_comparing_each_with_each(distance):
    hashes = planted(100 if distance > 30 else 300)
    every = apart(hashes, hashes)
    first, second = np.nonzero(np.triu(every <= distance, 1))
    found = hamming.pairs_within(hashes, distance)
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[1], second)
    np.testing.assert_array_equal(found[2], every[first, second])
    assert len(first) or distance == 0


@pytest.mark.parametrize("distance", [0, 4, 12])
def test_matches_between_two_sets(distance):
    hashes = planted()
    queries, table = hashes[:150], np.concatenate([hashes[100:], hashes[120:125]])
    every = apart(queries, table)
    first, second = np.nonzero(every <= distance)
    found = hamming.matches_within(queries, table, distance)
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[1], second)
    np.testing.assert_array_equal(found[2], every[first, second])


@given(
    number=st.integers(3, 64),
    distance=st.integers(0, 24),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_no_cut_of_the_bits_misses_a_pair(number, distance, seed):
    """The pigeonhole behind the exactness: any d flipped bits fall into some band's radius."""
    rng = np.random.default_rng(seed)
    cut = hamming._cut(number, distance)
    for _ in range(30):
        flipped = sum(1 << int(b) for b in rng.choice(64, distance, replace=False))
        assert any(
            ((flipped >> shift) & ((1 << bits) - 1)).bit_count() <= radius
            for shift, bits, radius in cut
        )


def test_small_pieces_give_the_same(monkeypatch):
    hashes = planted()
    whole = hamming.pairs_within(hashes, 10)
    monkeypatch.setattr(hamming, "_CANDIDATES", 7)
    monkeypatch.setattr(hamming, "_QUERIES", 11)
    for a, b in zip(whole, hamming.pairs_within(hashes, 10), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_cut_follows_the_number_of_hashes():
    """Many hashes want long bands: short ones would be shared by too many."""
    few, many = (hamming.bands(count, 8) for count in (100, 10_000_000))
    assert min(bits for _, bits, _ in few) < min(bits for _, bits, _ in many)
    for cut in (few, many):
        assert all(bits <= 22 for _, bits, _ in cut)


def test_a_hundred_thousand_hashes_are_not_compared_each_with_each():
    """5e9 pairs, of which some 700 thousand candidates at 4 bits; 50 copies are found."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[50_000:50_050] = hashes[:50] ^ np.uint64(0b1011 << 30)
    first, second, distance = hamming.pairs_within(hashes, 4)
    assert first.tolist() == list(range(50))
    assert second.tolist() == list(range(50_000, 50_050))
    assert set(distance.tolist()) == {3}


def test_nothing_to_compare():
    empty = np.zeros(0, np.uint64)
    assert [len(part) for part in hamming.pairs_within(empty, 5)] == [0, 0, 0]
    assert [len(part) for part in hamming.matches_within(planted(), empty, 5)] == [0, 0, 0]
    assert group_hashes(np.zeros((0, 2), np.uint64), 5).lists() == []


@pytest.mark.parametrize("distance", [-1, 64])
def test_a_distance_that_64_bits_cannot_have(distance):
    with pytest.raises(UserError, match=r"is not in \[0, 63\]"):
        hamming.pairs_within(planted(9), distance)


def test_hashes_of_another_kind_are_refused():
    with pytest.raises(UserError, match="one row of uint64, not int64"):
        hamming.pairs_within(np.zeros(3, np.int64), 1)


def test_groups_do_not_chain():
    """0-1 and 1-2 are near, 0-2 is not: 2 stays, since nothing near it stays."""
    found = group(4, np.array([0, 1, 1]), np.array([1, 2, 3]), np.array([3, 3, 1]))
    assert found.lists() == [[0, 1]]
    assert found.left_out.tolist() == [1]
    assert found.distance.tolist() == [0, 3, 0, 0]


def test_the_nearest_one_that_stays_is_named_and_of_equals_the_first():
    found = group(5, np.array([0, 1, 0, 1]), np.array([3, 3, 4, 4]), np.array([5, 2, 2, 2]))
    assert found.leader.tolist() == [0, 1, 2, 1, 0]
    assert found.lists() == [[0, 4], [1, 3]]


@pytest.mark.parametrize("columns", [1, 2])
def test_groups_of_hashes_keep_their_promise(columns):
    """Each left-out record is near one that stays; of those that stay none are near each other."""
    hashes = np.stack([planted(200, 0), planted(200, 0)[::-1]][:columns], axis=1)
    if columns == 2:
        hashes[100:150] = hashes[:50] ^ np.uint64(3)
    hashes = np.concatenate([hashes, hashes[:20]])
    found = group_hashes(hashes, 6)
    every = np.max([apart(column, column) for column in hashes.T], axis=0)
    stays = np.setdiff1d(np.arange(len(hashes)), found.left_out)
    assert len(found.left_out) >= 20
    for record in found.left_out:
        leader = found.leader[record]
        assert leader in stays
        assert leader < record
        assert every[record, leader] == found.distance[record] <= 6
    assert all(every[a, b] > 6 for a, b in itertools.combinations(stays, 2))


def test_ten_thousand_equal_hashes_make_one_group_and_no_fifty_million_pairs():
    hashes = np.full((10_000, 2), 12345, np.uint64)
    hashes[7] = 0
    assert [len(members) for members in group_hashes(hashes, 3).lists()] == [9_999]


def test_matches_ask_for_all_hashes_to_be_near():
    hashes = np.array([[0, 0], [1, 7], [0, 2**20 - 1]], np.uint64)
    query, record, distance = match_hashes(hashes[:1], hashes, 3)
    assert query.tolist() == [0, 0]
    assert record.tolist() == [0, 1]
    assert distance.tolist() == [0, 3]

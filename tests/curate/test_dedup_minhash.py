"""MinHash: the estimate's error and the search's recall against exact Jaccard indices."""

import itertools

import numpy as np
import pytest

from capjax.curate.dedup import minhash
from capjax.errors import UserError


def pair_of(index, size, rng):
    """Two sets of hashed shingles with that Jaccard index (to the nearest whole element)."""
    shared = round(2 * size * index / (1 + index))
    elements = rng.choice(2**32, 2 * size - shared, replace=False).astype(np.uint32)
    return np.sort(elements[:size]), np.sort(elements[size - shared :])


def sets_of(lists):
    ends = np.cumsum([0, *map(len, lists)])
    return minhash.ShingleSets(np.concatenate(lists), ends)


def exact(a, b):
    a, b = set(a), set(b)
    return len(a & b) / len(a | b)


def texts(count=200, seed=0):
    """Sentences of ten words of a small vocabulary, every third a copy with one word changed."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        words = [f"w{n}" for n in rng.integers(0, 500, 10)]
        if i % 3 == 2:
            words = made[-1].split()
            words[int(rng.integers(10))] = "changed"
        made.append(" ".join(words))
    return made


def test_shingles_of_words_and_characters():
    assert minhash.shingles("The dog's bone, the dog's BONE!", 2) == [
        "bone the",
        "dog's bone",
        "the dog's",
    ]
    assert minhash.shingles("aXa  xa", 3, "character") == [" xa", "a x", "axa", "xa "]
    assert minhash.shingles("Dog", 3) == ["dog"]  # shorter than a run: one shingle
    assert minhash.shingles("...", 2) == []
    assert minhash.shingles("", 2, "character") == []


def test_hashes_do_not_change_between_machines():
    """Python's own `hash` of a text differs in every process; these must not."""
    sets = minhash.shingle_sets(["a dog runs"], 1)
    assert sets.values.tolist() == [1385517300, 3391310933, 4148064672]
    expected = [2676824369, 1203573590, 196117117, 392050694]
    assert minhash.signatures(sets, 4).tolist() == [expected]


def test_sets_are_sorted_and_without_repeats():
    sets = minhash.shingle_sets(["a b a b a", "", "c d"], 2)
    assert len(sets) == 3
    assert [len(sets[i]) for i in range(3)] == [2, 0, 1]
    assert (np.diff(sets[0].astype(np.int64)) > 0).all()


@pytest.mark.parametrize("index", [0.1, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("size", [30, 200])
def test_the_estimate_is_unbiased_with_the_error_of_a_binomial(index, size):
    """Over 400 pairs, K = 128: mean error within 4 standard errors, spread as sqrt(J(1-J)/K)."""
    rng = np.random.default_rng(0)
    lists = [side for _ in range(400) for side in pair_of(index, size, rng)]
    signature = minhash.signatures(sets_of(lists), 128)
    error = minhash.estimate(signature[::2], signature[1::2]) - np.array(
        [exact(a, b) for a, b in zip(lists[::2], lists[1::2], strict=True)]
    )
    true = exact(*lists[:2])
    sigma = np.sqrt(true * (1 - true) / 128)
    assert abs(error.mean()) < 4 * sigma / np.sqrt(400)
    assert 0.85 < np.sqrt(np.mean(error**2)) / sigma < 1.15


def test_equal_sets_agree_everywhere_and_disjoint_ones_nearly_nowhere():
    rng = np.random.default_rng(0)
    a, b = pair_of(0.0, 50, rng)
    signature = minhash.signatures(sets_of([a, a, b]), 256)
    assert minhash.estimate(signature[0], signature[1]) == 1
    assert minhash.estimate(signature[0], signature[2]) < 0.02


def test_the_least_over_a_set_is_that_of_its_parts():
    """Signatures of unions: the smaller number of both, at each place."""
    rng = np.random.default_rng(0)
    a, b = pair_of(0.2, 30, rng)
    alone = minhash.signatures(sets_of([a, b, np.union1d(a, b)]), 64)
    np.testing.assert_array_equal(alone[2], np.minimum(alone[0], alone[1]))


def test_pieces_give_the_same_signatures_and_indices(monkeypatch):
    sets = minhash.shingle_sets(["", *texts(40), "", "a"])
    whole = minhash.signatures(sets, 32)
    first, second = map(np.array, zip(*itertools.combinations(range(len(sets)), 2), strict=True))
    index = minhash.jaccard(sets, first, second)
    monkeypatch.setattr(minhash, "_AT_A_TIME", 100)
    np.testing.assert_array_equal(minhash.signatures(sets, 32), whole)
    np.testing.assert_array_equal(minhash.jaccard(sets, first, second), index)
    assert (whole[0] == 2**32 - 1).all()


def test_exact_indices_are_those_of_python_sets():
    made = texts(60)
    sets = minhash.shingle_sets([*made, ""])
    pairs = list(itertools.combinations(range(60), 2))
    first, second = map(np.array, zip(*pairs, strict=True))
    expected = [exact(minhash.shingles(made[a]), minhash.shingles(made[b])) for a, b in pairs]
    np.testing.assert_allclose(minhash.jaccard(sets, first, second), expected, rtol=1e-12)
    assert max(expected) > 0.5
    assert minhash.jaccard(sets, np.array([60]), np.array([60])).tolist() == [0.0]


def test_bands_find_what_the_formula_says():
    """1000 pairs of one index, K = 60 in bands of 5: as many candidates as 1 - (1 - J^5)^12."""
    rng = np.random.default_rng(0)
    lists = [side for _ in range(1000) for side in pair_of(0.6, 40, rng)]
    first, second = minhash.candidates(minhash.signatures(sets_of(lists), 60), 5)
    assert (first < second).all()
    found = np.sum((first % 2 == 0) & (second == first + 1)) / 1000
    expected = minhash.found_with(exact(*lists[:2]), 60, 5)
    assert 0.5 < expected < 0.7
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000)


def test_candidates_are_listed_once_and_in_order():
    signature = np.array([[1, 2, 3, 4], [9, 9, 3, 4], [1, 2, 3, 4], [5, 6, 7, 8]], np.uint32)
    first, second = minhash.candidates(signature, 2)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    empty = minhash.candidates(np.zeros((0, 4), np.uint32), 2)
    assert [len(part) for part in empty] == [0, 0]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_the_longest_band_that_still_finds_enough(threshold):
    rows = minhash.rows_for(threshold, 128, 0.95)
    assert minhash.found_with(threshold, 128, rows) >= 0.95
    assert rows == 128 or all(
        minhash.found_with(threshold, 128, longer) < 0.95 for longer in range(rows + 1, 129)
    )


def test_near_pairs_are_exact_and_nearly_complete():
    """Nothing below the threshold; of the pairs at or above it, at least 95%."""
    made = texts(600)
    sets = minhash.shingle_sets(made, 1)
    every = {
        (a, b): index
        for a, b in itertools.combinations(range(len(made)), 2)
        if (index := exact(made[a].split(), made[b].split())) >= 0.7
    }
    first, second, index = minhash.near_pairs(sets, 0.7)
    found = dict(zip(zip(first.tolist(), second.tolist(), strict=True), index, strict=True))
    assert found.keys() <= every.keys()
    assert all(found[pair] == pytest.approx(every[pair]) for pair in found)
    assert len(every) > 150
    assert len(found) >= 0.95 * len(every)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minhash.shingles("a", 2, "sentence"), "unknown unit of shingles 'sentence'"),
        (lambda: minhash.shingles("a", 0), "shingles of 0 words"),
        (lambda: minhash.rows_for(0.0, 128), r"threshold=0.0 .* not in \(0, 1\]"),
        (lambda: minhash.rows_for(0.01, 8), "8 permutations cannot find"),
    ],
)
def test_impossible_settings_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()

"""Memory and order for records that are read in groups."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from capjax.data.row_groups import GroupCache, WindowShuffled


def test_windows_hold_their_groups_and_the_last_may_be_short():
    rows = np.array([3, 1, 4, 2, 5])
    order = WindowShuffled(rows, 2, seed=0)
    records = [order[p] for p in range(15)]
    group_of = np.repeat(np.arange(5), rows)
    place = 0
    visited = []
    while place < 15:
        groups = set()
        begin = place
        while place < 15 and (group_of[records[place]] in groups or len(groups) < 2):
            groups.add(int(group_of[records[place]]))
            place += 1
        visited.append(groups)
        assert place - begin == rows[list(groups)].sum()
    assert [len(groups) for groups in visited] == [2, 2, 1]
    assert {order.another(0, np.random.default_rng(i)) for i in range(200)} == set(range(15))


def test_the_cache_makes_once_forgets_the_oldest_and_survives_errors():
    cache = GroupCache(100)
    made = []

    def make(key, size):
        made.append(key)
        return key, size

    for key in "aba":
        assert cache.get(key, lambda: make(key, 40)) == key  # noqa: B023
    cache.get("c", lambda: make("c", 60))  # b is the one used longest ago
    cache.get("a", lambda: make("a", 40))
    assert made == ["a", "b", "c"]
    cache.get("large", lambda: make("large", 500))
    assert len(cache) == 1  # kept, though larger than the capacity
    assert cache.bytes == 500

    def fail():
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        cache.get("d", fail)
    assert cache.get("d", lambda: make("d", 1)) == "d"
    assert cache.bytes == 1


def test_threads_that_want_the_same_group_read_it_once():
    cache, made = GroupCache(10**6), []

    def make(key):
        made.append(key)
        time.sleep(0.002)  # so that the others come meanwhile
        return key, 10

    with ThreadPoolExecutor(8) as pool:
        wanted = [n // 8 for n in range(160)]
        assert list(pool.map(lambda n: cache.get(n, lambda: make(n)), wanted)) == wanted
    assert made == sorted(made)
    assert len(made) == 20
    assert cache.bytes == 200

"""Memory and order for data that can only be read in groups of records, such as Parquet's.

G: groups. N: records, group after group.
"""

from __future__ import annotations

import collections
import functools
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np


class GroupCache:
    """What was read last, up to `capacity` bytes, for all threads of a process.

    `get(key, make)`: what is kept under `key`, or else `make() -> (value, its bytes)`. Two threads
    that ask for the same group read it once: the second waits. The newest value is always kept, so
    that a group larger than the capacity can still be used. What `make` raises reaches the caller,
    and nothing is kept.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.bytes = 0  # of all values kept
        self._entries: collections.OrderedDict[Hashable, _Entry] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if not entry.made:
                try:
                    entry.value, entry.bytes = make()
                except BaseException:
                    with self._lock:
                        if self._entries.get(key) is entry:
                            del self._entries[key]
                    raise
                entry.made = True
                self._keep(key, entry)
            return entry.value

    def _keep(self, key: Hashable, entry: _Entry) -> None:
        with self._lock:
            # A thread that waited for one that failed makes an entry that is no longer listed.
            if self._entries.setdefault(key, entry) is not entry:
                return
            self.bytes += entry.bytes
            excess, victims = self.bytes - self.capacity, []
            for old, other in self._entries.items():  # the one used longest ago comes first
                if excess <= 0:
                    break
                if old != key and other.made:
                    victims.append(old)
                    excess -= other.bytes
            for old in victims:
                self.bytes -= self._entries.pop(old).bytes


class _Entry:
    def __init__(self):
        self.lock = threading.Lock()
        self.made = False
        self.value: Any = None
        self.bytes = 0


class WindowShuffled:
    """Every epoch a new permutation of the groups, and of the records of each `window` groups.

    An order as `data.order` describes it: a pure function of the seed. All records of a window come
    before any of the next, so that a reader which holds two windows reads each group once an epoch.
    Records that lie in one group are met close together, which a global shuffle would not do.

    rows: int [G], the records of each group.
    """

    def __init__(self, rows: np.ndarray, window: int, seed: int):
        self.rows = np.asarray(rows, np.int64)
        self.first = np.concatenate([[0], np.cumsum(self.rows)])  # [G + 1]
        self.window, self.seed = window, seed
        # Two of each, for threads that are still in the last one when the first is in the next.
        self._epoch = functools.lru_cache(2)(self._epoch_groups)
        self._window = functools.lru_cache(2)(self._window_records)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(int(position), int(self.first[-1]))
        _, ends = self._epoch(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        begin = int(ends[number - 1]) if number else 0
        return int(self._window(epoch, number)[place - begin])

    def epoch(self, position: int) -> int:
        """How often all records were seen before this position."""
        return int(position) // int(self.first[-1])

    def another(self, record: int, rng: np.random.Generator) -> int:
        """A record to take in the place of one that cannot be used: any, for all of its group may
        be damaged."""
        return int(rng.integers(self.first[-1]))

    def _epoch_groups(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(the groups [G] in their order, the place at which each window ends)."""
        groups = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
        ends = np.cumsum(self.rows[groups])
        last = np.minimum(np.arange(self.window, len(groups) + self.window, self.window), len(ends))
        return groups, ends[last - 1]

    def _window_records(self, epoch: int, number: int) -> np.ndarray:
        groups = self._epoch(epoch)[0][number * self.window : (number + 1) * self.window]
        records = np.concatenate([np.arange(self.first[g], self.first[g + 1]) for g in groups])
        return np.random.default_rng((self.seed, epoch, number)).permutation(records)

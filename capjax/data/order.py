"""In which order training sees the records of a source: position of the stream -> record.

An order is a pure function of its seed, so that every process and every resumed run agree without
a word between them. A source may bring its own: `source.order(seed, batch_size)` (`mixture`).
"""

from __future__ import annotations

import sys

import numpy as np


class Shuffled:
    """Every epoch a new permutation of all records, without an end."""

    def __init__(self, records: int, seed: int):
        # Imported here: grain takes half a second, and evaluation does not need it.
        import grain

        self.records = records
        # Grain adds the epoch to its seed: hashed, so that seeds 0 and 1 share no epoch's order.
        shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._order = grain.MapDataset.range(records).shuffle(seed=shuffle_seed).repeat()

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        return int(self._order[position])

    def epoch(self, position: int) -> int:
        """How often all records were seen before this position."""
        return int(position) // self.records

    def another(self, record: int, rng: np.random.Generator) -> int:
        """A record to take in the place of one that cannot be used."""
        return int(rng.integers(self.records))

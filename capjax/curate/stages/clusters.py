"""Clustering of embeddings and sampling that is balanced over clusters: stages of all records.

k-means in NumPy: the first centres by k-means++ on a sample (Arthur & Vassilvitskii 2007), then
Lloyd's steps; the same seed gives the same clusters. N embeddings of width E in C clusters cost
N C E multiplications a step: 100,000 x 512 in 1,000 clusters are some seconds on two cores.

Letters: N records, E embedding width, C clusters.
Raises `UserError` for fewer records than clusters and for embeddings that are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.curate.stages.texts import draw
from capjax.errors import UserError

_AT_A_TIME = 1 << 24  # distances
_SAMPLE = 64  # records a cluster, to choose the first centres from


class Cluster:
    """Gives `cluster`, the number of the nearest centre, and `cluster_distance` to it."""

    place, cached, version = "corpus", False, "1"

    def __init__(
        self,
        clusters: int,
        field: str = "embedding",
        *,
        steps: int = 20,
        seed: int = 0,
        name: str = "cluster",
    ):
        if clusters < 1 or steps < 1:
            raise UserError(
                f"stage {name!r}: clusters={clusters} and steps={steps} must be 1 or more"
            )
        self.name, self._field = name, field
        self.inputs = {field: list[float]}
        self.outputs = {"cluster": int, "cluster_distance": float}
        self.params = {"clusters": clusters, "steps": steps, "seed": seed}

    def corpus(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
        """Clusters of all records."""
        vectors = np.array(columns[self._field], np.float32)
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise UserError(f"stage {self.name!r}: {self._field!r} must be finite and of one width")
        centres = k_means(vectors, **self.params)
        of, distance = nearest(vectors, centres)
        return [
            {"cluster": int(c), "cluster_distance": round(float(d), 6)}
            for c, d in zip(of, distance, strict=True)
        ]


class Balance:
    """Keeps of each cluster the share `share`, or at most `most` records, by `rule`.

    rule: "random" (by seed and key), or "near" and "far" from the centre. At least one record of
    each cluster stays.
    """

    place, cached, version = "corpus", False, "1"
    outputs: Mapping[str, Any] = {}

    def __init__(
        self,
        *,
        share: float | None = None,
        most: int | None = None,
        rule: str = "random",
        seed: int = 0,
        name: str = "balance",
    ):
        if (share is None) == (most is None):
            raise UserError(f"stage {name!r}: give either share or most")
        if (share is not None and not 0 < share <= 1) or (most is not None and most < 1):
            raise UserError(f"stage {name!r}: share is above 0 and at most 1, most at least 1")
        if rule not in ("random", "near", "far"):
            raise UserError(f"stage {name!r}: rule={rule!r} must be random, near or far")
        self.name = name
        self.inputs = {"key": str, "cluster": int, "cluster_distance": float}
        self.params = {"share": share, "most": most, "rule": rule, "seed": seed}

    def corpus(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any] | None]:
        """{} for each record that stays."""
        share, most, rule, seed = (self.params[n] for n in ("share", "most", "rule", "seed"))
        members: dict[int, list[int]] = {}
        for i, cluster in enumerate(columns["cluster"]):
            members.setdefault(cluster, []).append(i)

        def place(i: int) -> tuple[float, int]:
            if rule == "random":
                return draw(seed, columns["key"][i]), i
            distance = columns["cluster_distance"][i]
            return (distance if rule == "near" else -distance), i

        result: list[dict[str, Any] | None] = [None] * len(columns["cluster"])
        for own in members.values():
            count = min(len(own), most) if most else max(1, round(share * len(own)))
            for i in sorted(own, key=place)[:count]:
                result[i] = {}
        return result


def k_means(vectors: np.ndarray, clusters: int, steps: int = 20, seed: int = 0) -> np.ndarray:
    """float32 [N,E] -> centres float32 [C,E]. A cluster that runs empty keeps its centre."""
    if len(vectors) < clusters:
        raise UserError(f"{len(vectors)} records cannot be in {clusters} clusters: ask for fewer")
    rng = np.random.default_rng(seed)
    size = min(len(vectors), _SAMPLE * clusters)
    centres = _first_centres(vectors[rng.permutation(len(vectors))[:size]], clusters, rng)
    for _ in range(steps):
        of, _ = nearest(vectors, centres)
        counts = np.bincount(of, minlength=clusters)
        order = np.argsort(of, kind="stable")
        filled = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[filled]
        sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
        moved = centres.copy()
        moved[filled] = sums / counts[filled, None]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def nearest(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the nearest centre int64 [N], of equal ones the first; its distance float32 [N])."""
    of = np.empty(len(vectors), np.int64)
    distance = np.empty(len(vectors), np.float32)
    rows = max(1, _AT_A_TIME // len(centres))
    lengths = (centres**2).sum(1)
    for start in range(0, len(vectors), rows):
        some = vectors[start : start + rows]
        squares = lengths - 2 * some @ centres.T
        of[start : start + rows] = squares.argmin(1)
        apart = some - centres[of[start : start + rows]]
        distance[start : start + rows] = np.sqrt((apart**2).sum(1))
    return of, distance


def _first_centres(sample: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++: each next centre with a probability by its squared distance to those there are."""
    chosen = [int(rng.integers(len(sample)))]
    squares = ((sample - sample[chosen[0]]) ** 2).sum(1).astype(np.float64)
    while len(chosen) < clusters:
        total = squares.sum()
        if total > 0:
            place = int(np.searchsorted(np.cumsum(squares), rng.random() * total, side="right"))
            place = min(place, len(sample) - 1)
        else:  # fewer different records than clusters: the others are alike
            place = int(rng.integers(len(sample)))
        chosen.append(place)
        squares = np.minimum(squares, ((sample - sample[place]) ** 2).sum(1))
    return sample[chosen].copy()

"""Captions of other records: as many as asked, never a record's own, the same each time."""

import numpy as np
import pytest

from capjax.data.mismatched import Source
from capjax.errors import UserError

WORLD = {"name": "capjax.data.scenes", "size": 40, "image_size": 16, "captions": {"detailed": 1}}


def origins(**fields):
    """For each record, the record whose captions it has: int [40]."""
    plain = Source(WORLD, 0.0)
    owner = {tuple(plain.captions(i)): i for i in range(len(plain))}
    assert len(owner) == 40  # no two captions are alike, or this would tell nothing
    source = Source(WORLD, **fields)
    assert [tuple(source[i]["captions"]) for i in range(40)] == [
        tuple(source.captions(i)) for i in range(40)
    ]
    return np.array([owner[tuple(source.captions(i))] for i in range(40)])


def test_the_share_of_mismatched_records_is_exact():
    own = np.arange(40)
    assert np.array_equal(origins(share=0.0), own)
    assert np.sum(origins(share=0.5) != own) == 20
    assert np.sum(origins(share=1.0) != own) == 40


def test_which_records_are_hit_depends_on_the_seed_alone():
    assert np.array_equal(origins(share=0.5), origins(share=0.5))
    assert not np.array_equal(origins(share=0.5), origins(share=0.5, seed=1))


def test_pictures_and_keys_stay():
    plain, mixed = Source(WORLD, 0.0), Source(WORLD, 1.0)
    for i in (0, 39):
        assert np.array_equal(plain[i]["image"], mixed[i]["image"])
        assert plain[i]["key"] == mixed[i]["key"]


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"share=1\.5 of mismatched captions must lie between 0"):
        Source(WORLD, 1.5)
    with pytest.raises(UserError, match="1 records cannot swap captions: give at least two"):
        Source(WORLD | {"size": 1}, 0.5)

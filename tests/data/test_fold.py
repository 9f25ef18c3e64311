"""Disjoint parts of a source: each record in one of them, as it was."""

import json
import pickle

import numpy as np
import pytest

from capjax.config import instantiate
from capjax.errors import UserError

SCENES = {"name": "capjax.data.scenes", "seed": 3, "image_size": 16, "size": 11}


def folds(count, data=SCENES):
    sections = [
        {"name": "capjax.data.fold", "data": data, "fold": fold, "folds": count}
        for fold in range(count)
    ]
    return [instantiate(section, "Source") for section in sections]


def keys(source):
    return [source[i]["key"] for i in range(len(source))]


@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_every_record_is_in_one_fold(count):
    whole = keys(instantiate(SCENES, "Source"))
    parts = [keys(part) for part in folds(count)]
    assert sorted(key for part in parts for key in part) == sorted(whole)
    assert parts == [whole[fold::count] for fold in range(count)]


def test_records_are_those_of_the_source():
    whole, (_, second) = instantiate(SCENES, "Source"), folds(2)
    np.testing.assert_array_equal(second[1]["image"], whole[3]["image"])
    assert second.captions(1) == whole.captions(3)
    assert not hasattr(second, "encoded")
    again = pickle.loads(pickle.dumps(second))
    assert keys(again) == keys(second)
    with pytest.raises(IndexError):
        second[5]


def test_stored_pictures_stay_stored(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    rows = [{"image": f"{name}.png", "captions": [name]} for name in "abc"]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"name": "capjax.data.manifest", "path": str(tmp_path / "m.jsonl")}
    (first, second) = folds(2, data)
    assert [first.encoded(i)["image"] for i in range(2)] == [b"a", b"c"]
    assert pickle.loads(pickle.dumps(second)).encoded(0)["image"] == b"b"


@pytest.mark.parametrize(
    ("fold", "count", "message"),
    [(2, 2, "fold=2 of folds=2"), (-1, 2, "from 0 on"), (0, 0, "folds=0"), (12, 20, "is empty")],
)
def test_folds_that_there_are_not(fold, count, message):
    section = {"name": "capjax.data.fold", "data": SCENES, "fold": fold, "folds": count}
    with pytest.raises(UserError, match=message):
        instantiate(section, "Source")


def test_a_mixture_is_refused():
    mixture = {"name": "capjax.data.mixture", "sources": {"a": SCENES, "b": SCENES}}
    with pytest.raises(UserError, match="fold cannot take records out of a mixture"):
        folds(2, mixture)

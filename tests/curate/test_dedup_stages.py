"""The stages on sources: planted duplicates are found, written, and left out again."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from capjax.curate.dedup import stages
from capjax.data.each_caption import EachCaption
from capjax.data.manifest import Source as Manifest
from capjax.data.skips import SkipBudget
from capjax.data.without import Source, Without, read_rows
from capjax.errors import BadRecord, UserError


class Records:
    """A source in memory of (key, picture or None for a bad one, captions)."""

    def __init__(self, *records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        key, image, captions = self.records[i]
        if image is None:
            raise BadRecord(key, "cannot be decoded: it is empty")
        return {"key": key, "image": image, "captions": captions}

    def captions(self, i):
        return self.records[i][2]


def picture(seed, side=48):
    """Large random squares."""
    squares = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(squares).resize((side, side)))


def captioned(*captions):
    image = np.zeros((2, 2, 3), np.uint8)
    return Records(*((f"c{i}", image, [text]) for i, text in enumerate(captions)))


def pictured(*seeds_and_sides):
    return Records(*((f"p{i}", picture(*x), ["a"]) for i, x in enumerate(seeds_and_sides)))


WORLD = ((0, 48), (1, 48), (0, 96), (2, 48), (1, 48), (0, 30))


@pytest.mark.parametrize("kind", ["phash", "dhash", "both"])
def test_pictures_of_other_sizes_are_found_and_the_first_stays(kind):
    found = stages.duplicate_pictures(pictured(*WORLD), kind=kind)
    assert found.lists() == [[0, 2, 5], [1, 4]]
    assert found.left_out.tolist() == [2, 4, 5]


def test_bad_pictures_stay_and_are_counted():
    records = pictured(*WORLD)
    records.records = (("bad", None, []), *records.records)
    with pytest.raises(BadRecord, match="'bad'"):
        stages.duplicate_pictures(records)
    skips = SkipBudget(7, 0.2)
    found = stages.duplicate_pictures(records, skips=skips)
    assert found.lists() == [[1, 3, 6], [2, 5]]
    assert skips.count == 1


def test_an_unknown_kind_of_hash_is_refused():
    with pytest.raises(UserError, match="unknown picture hash 'ahash'"):
        stages.duplicate_pictures(pictured(*WORLD), kind="ahash")


def test_captions_that_agree_but_for_a_word():
    source = captioned(
        "a brown dog runs over the green grass in the park",
        "two men play chess on a bench near the water",
        "A brown dog runs over the green grass, in the park .",
        "...",
        "a brown dog runs over the green grass in the yard",
        "two men play cards at home",
        "...",
    )
    found = stages.duplicate_captions(source, 0.75)
    assert found.lists() == [[0, 2, 4]]
    assert found.distance[2] == 0
    assert found.distance[4] == pytest.approx(1 - 9 / 11)  # of 10 runs each, 9 in both
    assert stages.duplicate_captions(source, 1.0).lists() == [[0, 2]]


def test_one_caption_a_thousand_times_is_one_group():
    source = captioned(*["a stock photo"] * 1000, "a dog", "a stock photo")
    assert [len(members) for members in stages.duplicate_captions(source, 0.8).lists()] == [1001]


def test_sources_with_several_captions_are_taken_apart_first():
    image = np.zeros((2, 2, 3), np.uint8)
    source = Records(("x", image, ["a red car", "a dog"]), ("y", image, ["a cat", "A red car."]))
    with pytest.raises(UserError, match=r"record 0 has 2 captions.*each_caption"):
        stages.duplicate_captions(source, 0.9)
    pairs = EachCaption(source)
    found = stages.duplicate_captions(pairs, 0.9)
    rows = list(stages.duplicate_rows(pairs, found))
    assert rows == [{"key": "y#1", "index": 3, "duplicate_of": "x#0", "distance": 0.0}]
    assert [Without(pairs, rows)[i]["key"] for i in range(3)] == ["x#0", "x#1", "y#0"]


def test_no_captions_at_all():
    assert stages.duplicate_captions(captioned(), 0.8).lists() == []


def test_leaks_name_the_nearest_test_picture():
    train, test = pictured(*WORLD), pictured((7, 48), (2, 100), (0, 96), (0, 48))
    found = stages.leaked(train, test)
    rows = list(stages.leaked_rows(train, test, found))
    assert [(row["key"], row["index"], row["duplicate_of"]) for row in rows][:2] == [
        ("p0", 0, "p3"),
        ("p2", 2, "p2"),
    ]
    assert [row["index"] for row in rows] == [0, 2, 3, 5]
    assert rows[0]["distance"] == 0


def test_a_bad_test_picture_is_an_error_and_a_bad_training_picture_is_counted():
    good, bad = pictured(*WORLD), Records(("bad", None, []), ("p", picture(0), ["a"]))
    with pytest.raises(BadRecord):
        stages.leaked(good, bad, skips=SkipBudget(6, 1.0))
    skips = SkipBudget(2, 0.5)
    assert stages.leaked(bad, good, skips=skips).train.tolist() == [1]
    assert skips.keys == ("bad",)


def test_hash_files_are_used_again(tmp_path):
    train, test = pictured(*WORLD), pictured((0, 96))
    paths = {"train_hashes": tmp_path / "a.jsonl", "test_hashes": tmp_path / "b.jsonl"}
    first = stages.leaked(train, test, **paths)
    train.records = (train.records[0], *[(k, None, c) for k, _, c in train.records[1:5]],
                     train.records[5])  # fmt: skip
    again = stages.leaked(train, test, **paths)  # the middle ones are not decoded any more
    assert again.train.tolist() == first.train.tolist() == [0, 2, 5]


def test_what_is_written_is_left_out(tmp_path):
    source = pictured(*WORLD)
    path = tmp_path / "duplicates.jsonl"
    found = stages.duplicate_pictures(source)
    assert stages.write(path, stages.duplicate_rows(source, found)) == 3
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["key"], line["duplicate_of"]) for line in lines] == [
        ("p2", "p0"),
        ("p4", "p1"),
        ("p5", "p0"),
    ]
    rest = pickle.loads(pickle.dumps(Without(source, read_rows(path), str(path))))
    assert [rest[i]["key"] for i in range(len(rest))] == ["p0", "p1", "p3"]
    assert rest.captions(2) == ["a"]
    by_key = Without(source, [{"key": row["key"]} for row in read_rows(path)])
    assert [by_key[i]["key"] for i in range(len(by_key))] == ["p0", "p1", "p3"]


def test_a_list_for_other_data_is_refused():
    source = pictured(*WORLD)
    with pytest.raises(UserError, match="has 'p3' where the data have 'p2'"):
        Without(source, [{"key": "p3", "index": 2}])
    with pytest.raises(UserError, match="names record 6 of 6"):
        Without(source, [{"key": "p6", "index": 6}])
    # Of many rows some are looked at; a key that stands elsewhere now is noticed when it comes.
    moved = Records(*source.records[1:], source.records[0])
    rest = Without(moved, [{"key": "p2", "index": 1}])
    rest._kept = np.arange(6)
    with pytest.raises(UserError, match="leaves out 'p2', which has another place now"):
        rest[1]


def test_a_list_that_leaves_nothing_and_a_mixture_are_refused():
    source = pictured(*WORLD)
    with pytest.raises(UserError, match="none is left"):
        Without(source, [{"key": f"p{i}", "index": i} for i in range(6)])
    source.names = ("a", "b")
    with pytest.raises(UserError, match="wrap a source of the mixture"):
        Without(source, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n", ":1 is not JSON"),
        ('{"index": 1}\n', ":1 names no record"),
        ('\n{"key": "a", "index": "1"}\n', ":2: the index '1' is not a whole number"),
        (None, "cannot read"),
    ],
)
def test_damaged_lists_are_refused(tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(path)


def test_twenty_photographs_stored_anew_are_found_by_config(shared, tmp_path):
    """Flickr8k: halved, trimmed by 2% and saved as JPEG of quality 50; found, and left out."""
    known = Manifest(shared / "data/flickr8k/captions_extra.jsonl", limit=40)
    records = []
    for i in range(40):
        if i < 20:
            image = Image.fromarray(known[i]["image"][1:-2, 1:-2]).resize((80, 80))
            image.save(tmp_path / f"{i}.jpg", quality=50)
        else:
            Image.fromarray(known[i]["image"]).save(tmp_path / f"{i}.jpg", quality=90)
        records.append({"image": f"{i}.jpg", "caption": "a photograph"})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    train = Manifest(path)
    test = Manifest(shared / "data/flickr8k/captions_extra.jsonl", limit=20)
    found = stages.leaked(train, test)
    assert found.train.tolist() == found.test.tolist() == list(range(20))
    stages.write(tmp_path / "leaks.jsonl", stages.leaked_rows(train, test, found))
    rest = Source(
        {"name": "capjax.data.manifest", "path": str(path)}, str(tmp_path / "leaks.jsonl")
    )
    assert [rest[i]["key"] for i in range(len(rest))] == [f"{i}.jpg" for i in range(20, 40)]

"""JSONL manifests: the real Flickr8k pack, pictures written here, and every bad line."""

import io
import json
import logging
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from capjax.data.manifest import Source
from capjax.errors import BadRecord, UserError


def png(colour, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, *lines, name="data.jsonl"):
    """A manifest of `lines` (records, or text as it stands), beside good.png and more.tar."""
    (folder / "good.png").write_bytes(png("red"))
    (folder / "other.png").write_bytes(png("blue"))
    with tarfile.open(folder / "more.tar", "w") as tar:
        info = tarfile.TarInfo("inside.png")
        info.size = len(png("green"))
        tar.addfile(info, io.BytesIO(png("green")))
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


GOOD = {"image": "good.png", "captions": ["a red wall", "red"]}
OTHER = {"image": "other.png", "caption": "a blue wall"}
INSIDE = {"image": "inside.png", "shard": "more.tar", "captions": ["a green wall"]}

BAD_LINES = {
    "not json": ("{'image': 'a.png'}", r"is not JSON \(Expecting property name.* at column 2\)"),
    "cut": ('{"image": "good.png", "capt', r"is not JSON \(Unterminated string"),
    "nested": ("[" * 100_000, r"is not JSON \("),
    "list": ("[1, 2]", "is a JSON list, not an object"),
    "no image": ({"captions": ["a"]}, "lacks the field 'image'"),
    "no captions": ({"image": "good.png"}, "lacks the field 'captions'"),
    "empty label": ({"image": "good.png", "label": " "}, "has an empty 'label'"),
    "label type": ({"image": "good.png", "label": 3}, "has 'label' of type int, not a string"),
    "both": ({"image": "good.png", "captions": ["a"], "caption": "a"}, "has both"),
    "image type": ({"image": 3, "captions": ["a"]}, "has 'image' of type int, not a string"),
    "captions type": ({"image": "good.png", "captions": "a"}, "has 'captions' of type str, not a"),
    "caption type": ({"image": "good.png", "captions": ["a", 3]}, r"'captions\[1\]' of type int"),
    "one caption type": ({"image": "good.png", "caption": ["a"]}, "'caption' of type list"),
    "key type": ({**GOOD, "key": True}, "has 'key' of type bool, not a string"),
    "no caption": ({"image": "good.png", "captions": []}, "has an empty list of captions"),
    "empty caption": ({"image": "good.png", "captions": ["a", " \t"]}, r"empty 'captions\[1\]'"),
    "empty image": ({"image": "", "captions": ["a"]}, "has an empty 'image'"),
    "surrogate": ('{"image": "good.png", "caption": "\\ud83d"}', "lone surrogate"),
    "no picture": (
        {"image": "none.png", "captions": ["a"]},
        "the picture 'none.png', which is not",
    ),
    "folder": ({"image": ".", "captions": ["a"]}, "names the picture '.', which is not in"),
    "null byte": ({"image": "a\0.png", "captions": ["a"]}, "which is not in"),
    "no shard": ({**INSIDE, "shard": "none.tar"}, "names the shard 'none.tar', which is not in"),
    "not in shard": ({**INSIDE, "image": "good.png"}, "which is not in the shard 'more.tar'"),
    "shard type": ({**INSIDE, "shard": 0}, "has 'shard' of type int"),
    "duplicate": ({**OTHER, "caption": "again"}, "repeats the key of line 1"),
}


@pytest.fixture(params=BAD_LINES, ids=lambda name: name.replace(" ", "-"))
def bad_line(request):
    return BAD_LINES[request.param]


def test_a_bad_line_stops_with_its_number_and_what_is_wrong(tmp_path, bad_line):
    line, reason = bad_line
    path = write(tmp_path, OTHER, INSIDE, line, GOOD)
    with pytest.raises(UserError, match=rf"1 of 4 records .*data\.jsonl:3.*{reason}.*max_bad_frac"):
        Source(path)


def test_a_bad_line_within_the_fraction_is_logged_and_left_out(tmp_path, bad_line, caplog):
    line, _ = bad_line
    path = write(tmp_path, OTHER, INSIDE, line, GOOD)
    with caplog.at_level(logging.WARNING):
        source = Source(path, max_bad_fraction=0.25)
    assert [source[i]["key"] for i in range(len(source))] == ["other.png", "inside.png", "good.png"]
    assert len(source.bad_lines) == 1
    assert source.bad_lines[0].startswith(f"{path}:3")
    (record,) = caplog.records
    assert "data.jsonl:3" in record.getMessage()


def test_the_log_names_the_key(tmp_path, caplog):
    Source(
        write(tmp_path, GOOD, {"id": 17, "image": "none.png", "caption": "a"}), max_bad_fraction=0.5
    )
    assert "data.jsonl:2 17" in caplog.text


def test_bytes_that_are_not_utf8_are_a_bad_line(tmp_path):
    path = write(tmp_path, GOOD)
    path.write_bytes(
        path.read_bytes() + '{"image": "other.png", "caption": "café"}'.encode("latin-1")
    )
    with pytest.raises(UserError, match=r"data\.jsonl:2': is not UTF-8 \(byte 39\)"):
        Source(path)


def test_more_bad_lines_than_allowed_stop_naming_the_first(tmp_path):
    path = write(tmp_path, GOOD, "nonsense", OTHER, "{}", INSIDE)
    assert len(Source(path, max_bad_fraction=0.4)) == 3
    with pytest.raises(UserError, match=r"2 of 5 records could not be used \(first: '.*jsonl:2'"):
        Source(path, max_bad_fraction=0.39)


def test_files_and_members_of_tars_are_read(tmp_path):
    source = Source(write(tmp_path, {**GOOD, "width": 6, "id": 7}, OTHER, INSIDE))
    assert len(source) == 3
    record = source[0]
    np.testing.assert_array_equal(record.pop("image"), np.full((4, 6, 3), [255, 0, 0], np.uint8))
    assert record == {"key": "7", "id": 7, "width": 6, "captions": ["a red wall", "red"]}
    assert (source[1]["image"] == [0, 0, 255]).all()
    assert (source[2]["image"] == [0, 128, 0]).all()
    assert [source.captions(i) for i in range(3)] == [
        ["a red wall", "red"],
        ["a blue wall"],
        ["a green wall"],
    ]
    assert [record["key"] for record in source] == ["7", "other.png", "inside.png"]
    with pytest.raises(IndexError):
        source[3]


def test_one_picture_may_serve_records_of_different_keys(tmp_path):
    source = Source(write(tmp_path, {**GOOD, "key": "a"}, {**GOOD, "key": "b", "id": 1}))
    assert [source[i]["key"] for i in range(2)] == ["a", "b"]


def test_pictures_below_another_root(tmp_path):
    (tmp_path / "pictures").mkdir()
    write(tmp_path / "pictures")
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(INSIDE))
    assert len(Source(path, image_root=tmp_path / "pictures")) == 2
    with pytest.raises(UserError, match=r"names the picture 'good\.png'"):
        Source(path)
    with pytest.raises(UserError, match=r"image_root .*nowhere' is not a folder"):
        Source(path, image_root=tmp_path / "nowhere")


def test_a_relative_path_without_a_folder(tmp_path, monkeypatch):
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert len(Source("data.jsonl")) == 1


def test_blank_lines_and_a_byte_order_mark_are_allowed(tmp_path):
    path = write(tmp_path, GOOD, "", "  ", {**OTHER, "caption": "grün 🟢"}, "")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip(b"\n"))
    source = Source(path)
    assert source.captions(0) == GOOD["captions"]
    assert source.captions(1) == ["grün 🟢"]


def test_windows_line_ends_are_allowed(tmp_path):
    path = write(tmp_path, GOOD, OTHER)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Source(path).captions(1) == ["a blue wall"]


def test_split_keeps_the_lines_of_one_split(tmp_path):
    path = write(tmp_path, {**GOOD, "split": "train"}, {**OTHER, "split": "dev"})
    source = Source(path, split="dev")
    assert len(source) == 1
    assert source[0]["key"] == "other.png"
    assert source[0]["split"] == "dev"
    with pytest.raises(UserError, match="no record of split 'test'; it has dev, train"):
        Source(path, split="test")
    with pytest.raises(UserError, match="lacks the field 'split'"):
        Source(write(tmp_path, GOOD), split="dev")


def test_limit_keeps_the_first_good_records_and_looks_no_further(tmp_path):
    path = write(tmp_path, "bad", GOOD, OTHER, "bad too", INSIDE)
    source = Source(path, limit=2, max_bad_fraction=0.2)
    assert [source[i]["key"] for i in range(len(source))] == ["good.png", "other.png"]
    assert len(Source(write(tmp_path, GOOD, OTHER), limit=10)) == 2
    for limit in (0, -3):
        with pytest.raises(UserError, match=f"limit={limit} keeps no record"):
            Source(path, limit=limit)


def test_missing_empty_and_compressed_manifests(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: No such file.*check the path"):
        Source(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="is not a file"):
        Source(tmp_path)
    for text in ("", "\n \n"):
        (tmp_path / "empty.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"empty\.jsonl is empty"):
            Source(tmp_path / "empty.jsonl")
    (tmp_path / "a.jsonl.gz").write_bytes(b"\x1f\x8b\x08rest")
    with pytest.raises(UserError, match=r"a\.jsonl\.gz is compressed with gzip.*unpack it"):
        Source(tmp_path / "a.jsonl.gz")
    with pytest.raises(UserError, match="no usable record: all 2 lines are bad"):
        Source(write(tmp_path, "x", "y"), max_bad_fraction=1.0)
    with pytest.raises(UserError, match="max_bad_fraction=2 is not between 0 and 1"):
        Source(write(tmp_path, GOOD), max_bad_fraction=2)


def test_a_truncated_shard_is_named(tmp_path):
    path = write(tmp_path, GOOD, INSIDE)
    shard = tmp_path / "more.tar"
    shard.write_bytes(shard.read_bytes()[:540])
    with pytest.raises(UserError, match=r"more\.tar is cut short: member 'inside.png'"):
        Source(path, max_bad_fraction=1.0)


def test_a_picture_that_cannot_be_used_is_one_bad_record(tmp_path):
    source = Source(write(tmp_path, GOOD, OTHER))
    (tmp_path / "good.png").write_bytes(png("red")[:40])
    (tmp_path / "other.png").unlink()
    with pytest.raises(BadRecord, match=r"record 'good\.png': cannot be decoded") as error:
        source[0]
    assert error.value.key == "good.png"
    with pytest.raises(BadRecord, match=r"record 'other\.png': cannot be read: No such file"):
        source[1]
    assert source.captions(0) == GOOD["captions"]


def test_a_manifest_edited_after_opening_is_noticed(tmp_path):
    path = write(tmp_path, GOOD, OTHER)
    source = Source(path)
    write(tmp_path, OTHER, GOOD, INSIDE)
    with pytest.raises(UserError, match=r"data\.jsonl has changed since it was opened"):
        source.captions(0)


def test_flickr8k_opens_whole(shared):
    folder = shared / "data" / "flickr8k"
    sources = {
        name: Source(folder / f"captions_{name}.jsonl") for name in ("train", "dev", "extra")
    }
    assert {name: len(source) for name, source in sources.items()} == {
        "train": 6000,
        "dev": 1000,
        "extra": 91,
    }
    assert sources["train"].captions(0)[0] == (
        "A child in a pink dress is climbing up a set of stairs in an entry way ."
    )
    record = sources["dev"][0]
    assert record["key"] == "1022454332_6af2c1449a.jpg"
    assert record["image"].shape == (160, 160, 3)
    assert record["image"].std() > 20
    assert record["split"] == "dev"
    assert len(record["captions"]) == 5
    assert all(len(source.captions(i)) == 5 for source in sources.values() for i in range(91))


def test_flickr8k_reads_alike_from_threads_and_pickled_copies(shared):
    source = Source(shared / "data" / "flickr8k" / "captions_train.jsonl", limit=2500)
    copy = pickle.loads(pickle.dumps(source))
    picked = range(0, 2500, 61)
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(copy.__getitem__, picked))
    for i, record in zip(picked, threaded, strict=True):
        np.testing.assert_array_equal(record["image"], source[i]["image"])
        assert record["captions"] == source.captions(i)


def test_what_an_opened_source_keeps_is_small(tmp_path):
    """36 bytes a record, so that millions of lines fit and travel to workers."""
    path = write(tmp_path, *({**GOOD, "key": f"record {i}"} for i in range(5000)))
    assert len(pickle.dumps(Source(path))) < 5000 * 40


def test_a_class_name_stands_in_place_of_captions(tmp_path):
    both = {**OTHER, "label": "wall"}
    source = Source(write(tmp_path, {"image": "good.png", "label": "a red wall"}, both))
    assert [source[i]["label"] for i in range(2)] == ["a red wall", "wall"]
    assert [source[i]["captions"] for i in range(2)] == [[], ["a blue wall"]]
    assert source.captions(0) == []


def test_the_real_labelled_pack(shared):
    source = Source(shared / "data" / "cifar10_sample" / "labels.jsonl")
    assert len(source) == 2000
    assert len({source[i]["label"] for i in range(0, 2000, 50)}) == 10
    assert source[7]["image"].shape == (32, 32, 3)

"""Sets looked through and written in other forms, byte for byte."""

import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from capjax.data import array_records, manifest
from capjax.data.encoded import encoded, extension
from capjax.data.inspect import inspect, write_page
from capjax.data.prepare import STATE, prepare
from capjax.data.spec import open_spec, parse_fields, section_of
from capjax.errors import BadRecord, UserError

SCENES = {"name": "capjax.data.scenes", "seed": 0, "image_size": 32, "size": 25}


@pytest.fixture(scope="module")
def flickr8k(shared):
    return {
        "name": "capjax.data.manifest",
        "path": str(shared / "data" / "flickr8k" / "captions_dev.jsonl"),
        "limit": 60,
    }


def test_real_pictures_become_array_records_and_stay_what_they_are(flickr8k, tmp_path):
    state = prepare(flickr8k, tmp_path / "to", "array_record", records_per_shard=25)
    assert [shard["records"] for shard in state["shards"].values()] == [25, 25, 10]
    before = manifest.Source(flickr8k["path"], limit=60)
    after = open_spec(str(tmp_path / "to" / "*.array_record"))
    assert len(after) == len(before) == 60
    for index in range(60):
        ours, theirs = after.encoded(index), before.encoded(index)
        assert ours == theirs
        assert extension(ours["image"]) == "jpg"
    np.testing.assert_array_equal(after[41]["image"], before[41]["image"])
    again = pickle.loads(pickle.dumps(after))
    assert again.captions(59) == before.captions(59)
    with pytest.raises(IndexError):
        after.encoded(60)


def test_drawn_pictures_lose_nothing(tmp_path):
    prepare(SCENES, tmp_path, "array_record", records_per_shard=10)
    after, before = open_spec(str(tmp_path / "*.array_record")), open_spec_of(SCENES)
    for index in range(25):
        np.testing.assert_array_equal(after[index]["image"], before[index]["image"])
        assert after.captions(index) == before.captions(index)


def open_spec_of(section):
    from capjax.config import instantiate

    return instantiate(section, "Source")


def test_a_killed_conversion_goes_on_and_ends_the_same(tmp_path):
    section = SCENES | {"size": 400}
    whole = prepare(section, tmp_path / "whole", "array_record", records_per_shard=20)
    section_file = tmp_path / "section.json"
    section_file.write_text(json.dumps(section))
    command = [
        *(sys.executable, "-m", "capjax.data", "prepare", str(section_file)),
        *("--to", str(tmp_path / "killed"), "--form", "array_record", "--records-per-shard", "20"),
    ]
    root = pathlib.Path(__file__).parents[2]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)
    while not len(list((tmp_path / "killed").glob("*.array_record"))) > 2:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.array_record")}
    assert len(done) < 20
    finished = prepare(section, tmp_path / "killed", "array_record", records_per_shard=20)
    assert finished["shards"] == whole["shards"]
    recorded = json.loads((tmp_path / "killed" / STATE).read_text())
    assert recorded == finished
    kept = [path for path, when in done.items() if path.stat().st_mtime_ns == when]
    assert len(kept) >= len(done) - 1  # what was whole is not written again
    assert not list((tmp_path / "killed").glob("*.partial"))


def test_a_shard_that_was_damaged_is_written_again(tmp_path):
    prepare(SCENES, tmp_path, "array_record", records_per_shard=10)
    path = next(tmp_path.glob("part-00001*"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\x00")
    prepare(SCENES, tmp_path, "array_record", records_per_shard=10)
    assert path.read_bytes() == good


def test_another_conversion_is_refused(tmp_path):
    prepare(SCENES, tmp_path / "to", "array_record", records_per_shard=10)
    with pytest.raises(UserError, match=r"another conversion \(records_per_shard differ\)"):
        prepare(SCENES, tmp_path / "to", "array_record", records_per_shard=11)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UserError, match="holds other files"):
        prepare(SCENES, tmp_path / "other", "array_record")
    with pytest.raises(UserError, match="unknown form 'zip'"):
        prepare(SCENES, tmp_path / "not", "zip")
    with pytest.raises(UserError, match="must be at least 1"):
        prepare(SCENES, tmp_path / "not", "tar", records_per_shard=0)


def folder_with_a_bad_picture(folder):
    """A manifest of four pictures, of which one is no picture and one is gone."""
    from PIL import Image

    for name in ("a.png", "b.png", "d.png"):
        Image.new("RGB", (4, 3), "red").save(folder / name)
    (folder / "c.png").write_bytes(b"no picture")
    lines = [{"image": f"{n}.png", "captions": [f"caption {n}", "<b>two</b>"]} for n in "abcd"]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = manifest.Source(folder / "m.jsonl")
    (folder / "d.png").unlink()
    return source


def test_what_cannot_be_used_is_named_and_the_rest_is_found(tmp_path):
    source = folder_with_a_bad_picture(tmp_path)
    findings = inspect(source, decode=0, progress=False)
    assert (findings.records, findings.captions, findings.looked_at) == (4, 8, 2)
    assert findings.fields == {"key": 2, "image": 2, "captions": 2}
    assert findings.words == {2: 4, 1: 4}
    assert findings.captions_each == {2: 4}
    assert sorted(findings.failures) == ["c.png", "d.png"]
    text = findings.text()
    assert "smallest 3 x 4" in text
    assert "2 records cannot be used" in text
    write_page(findings, tmp_path / "page.html", "<title>")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img src=") == 2
    assert "&lt;b&gt;two" in page
    assert "<b>two" not in page
    with pytest.raises(BadRecord, match="cannot be read"):
        encoded(source, 3)


def test_bad_records_leave_a_gap_and_are_told(tmp_path):
    folder_with_a_bad_picture(tmp_path)
    section = {
        "name": "capjax.data.manifest",
        "path": str(tmp_path / "m.jsonl"),
        "max_bad_fraction": 0.5,
    }
    state = prepare(section, tmp_path / "to", "array_record", max_bad_fraction=0.5)
    # What does not decode is stored as it is; the source that reads it says so again.
    assert sum(shard["records"] for shard in state["shards"].values()) == 3
    source = open_spec(str(tmp_path / "to" / "*.array_record"))
    with pytest.raises(BadRecord, match="cannot be decoded"):
        source[2]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 70_000])
def test_what_is_no_array_record_is_refused(tmp_path, data):
    (tmp_path / "x.array_record").write_bytes(data)
    with pytest.raises(UserError, match="is no ArrayRecord file, or is cut short"):
        array_records.Source(str(tmp_path / "*.array_record"))
    with pytest.raises(UserError, match="there is no file"):
        array_records.Source(str(tmp_path / "*.none"))


def test_a_truncated_array_record_is_refused(tmp_path):
    path = tmp_path / "x.array_record"
    records = [{"key": str(i), "image": b"1" * 300, "captions": ["a"]} for i in range(500)]
    array_records.write(path, records)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cut short"):
        array_records.Source(str(path))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xff\xff\xff{}", b"\x02\x00\x00\x00{}", b"\x02\x00\x00\x00xx"]
)
def test_a_damaged_record_is_a_bad_one(tmp_path, data):
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(tmp_path / "x.array_record"), "group_size:1")
    writer.write(data)
    writer.close()
    with pytest.raises(BadRecord, match=r"x\.array_record:0.*damaged"):
        array_records.Source(str(tmp_path / "x.array_record")).encoded(0)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../secret.png"])
def test_a_manifest_does_not_leave_its_folder(tmp_path, name):
    (tmp_path / "secret.png").touch()
    (tmp_path / "set").mkdir()
    line = json.dumps({"image": name, "captions": ["x"]})
    (tmp_path / "set" / "m.jsonl").write_text(line)
    with pytest.raises(UserError, match="leaves the folder"):
        manifest.Source(tmp_path / "set" / "m.jsonl")


def test_a_source_is_told_by_its_name(tmp_path):
    assert section_of("x.jsonl", {"limit": 3}) == {
        "name": "capjax.data.manifest",
        "path": "x.jsonl",
        "limit": 3,
    }
    assert section_of("a-{0..3}.tar")["name"] == "capjax.data.webdataset"
    assert section_of("tfds:coco_captions:val")["split"] == "val"
    assert section_of(str(tmp_path))["name"] == "capjax.data.folder"
    assert parse_fields(["limit=3", "split=val", 'caption=["a"]']) == {
        "limit": 3,
        "split": "val",
        "caption": ["a"],
    }
    with pytest.raises(UserError, match=r"cannot tell what source 'x\.zip' is"):
        section_of("x.zip")
    with pytest.raises(UserError, match="cannot read 'limit'"):
        parse_fields(["limit"])
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match="is no source section"):
        section_of(str(tmp_path / "x.json"))

"""Records of tar shards: pairing, captions, bad members, and the real Flickr8k pack in tars."""

import gzip
import json
import logging
import pickle
import random
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shards import link, png, records, write_tar

from capjax.config import instantiate
from capjax.data import images, tokenizer, webdataset
from capjax.data.files import RemoteFile
from capjax.data.loader import Examples, TrainLoader
from capjax.data.tars import TarIndex
from capjax.data.webdataset import Source
from capjax.errors import BadRecord, UserError


def everything(source):
    return [source.encoded(i) for i in range(len(source))]


def one(tmp_path, members, **options):
    return Source(write_tar(tmp_path / "a.tar", members), **options)


def test_records_of_several_shards(tmp_path):
    for i in range(3):
        write_tar(tmp_path / f"part-{i:03d}.tar", records(4, start=4 * i))
    section = {"name": "capjax.data.webdataset", "shards": f"{tmp_path}/part-{{000..002}}.tar"}
    source = instantiate(section, "Source", where="data.train")
    assert len(source) == 12
    assert [r["key"] for r in everything(source)] == [
        f"part-{i // 4:03d}/{i:09d}" for i in range(12)
    ]
    assert [source.captions(i) for i in range(12)] == [[f"caption {i}"] for i in range(12)]
    record = source[5]
    assert record.keys() == {"key", "image", "captions"}
    assert record["image"].shape == (4, 6, 3)
    assert (record["image"] == [255, 0, 0]).all()
    assert source.encoded(5)["image"] == png("red", (6, 4))
    assert source[-1]["key"] == "part-002/000000011"
    for beyond in (12, -13):
        with pytest.raises(IndexError):
            source[beyond]
    # The second time indices lie there too, and the pattern matches them.
    assert everything(Source(f"{tmp_path}/*")) == everything(source)
    assert source.bad_records == 0


def test_shards_of_one_name_in_different_folders(tmp_path):
    for folder in ("a/x", "b/x"):
        (tmp_path / folder).mkdir(parents=True)
        write_tar(tmp_path / folder / "0.tar", records(1))
    source = Source(f"{tmp_path}/*/x/0.tar")
    assert [r["key"] for r in everything(source)] == ["a/x/0/000000000", "b/x/0/000000000"]


def test_one_shard_given_twice_is_refused(tmp_path, monkeypatch):
    write_tar(tmp_path / "0.tar", records(1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"0\.tar is given twice"):
        Source(["0.tar", str(tmp_path / "0.tar")])


def test_a_picture_that_does_not_decode_is_a_bad_record(tmp_path):
    source = one(tmp_path, {"0.jpg": b"no picture", "0.txt": b"a dog"})
    assert source.captions(0) == ["a dog"]
    assert source.encoded(0)["image"] == b"no picture"
    with pytest.raises(BadRecord, match="cannot be decoded") as caught:
        source[0]
    assert caught.value.key == "a/0"


GOOD = {"g.png": png("blue"), "g.txt": b"good"}
BAD_MEMBERS = {
    "no caption": ([("b.png", png("red"))], "a/b", r"has a picture and no \.txt \(it has \.png\)"),
    "no picture": ([("b.txt", b"b")], "a/b", r"has a caption and no picture \(it has \.txt\)"),
    "neither": ([("b.md", b"b")], "a/b", r"has no picture \(it has \.md\)"),
    "empty picture": ([("b.png", b""), ("b.txt", b"b")], "a/b", r"has a \.png that is empty"),
    "empty caption": ([("b.png", png("red")), ("b.txt", b"")], "a/b", r"has a \.txt that is empty"),
    "empty class": (
        [("b.png", png("red")), ("b.txt", b"b"), ("b.cls", b"")],
        "a/b",
        r"has a \.cls that is empty",
    ),
    "twice": (
        [("b.png", png("red")), ("b.txt", b"1"), ("b.txt", b"2")],
        "a/b",
        r"has a \.txt that is there twice",
    ),
    "twice apart": (
        [("./b.PNG", png("red")), ("b.txt", b"1"), ("c.jpg", b"x"), ("b.png", png("red"))],
        "a/b",
        r"has a \.png that is there twice",
    ),
    "two pictures": (
        [("b.png", png("red")), ("b.jpg", png("red")), ("b.txt", b"1")],
        "a/b",
        r"several pictures, \.jpg and \.png: choose with image='jpg'",
    ),
    "link": ([link("b.png", "g.png"), ("b.txt", b"1")], "a/b", r"a \.png that is a symbolic link"),
    "above": (
        [("../b.png", png("red")), ("../b.txt", b"1")],
        "a/../b",
        r"a name that leads out of its folder \(\.\.\)",
    ),
    "absolute": ([("/b.png", png("red")), ("/b.txt", b"1")], "a//b", "has an absolute path"),
}


@pytest.mark.parametrize("case", BAD_MEMBERS, ids=lambda name: name.replace(" ", "-"))
def test_bad_members_are_counted_and_named(tmp_path, case, caplog):
    members, key, reason = BAD_MEMBERS[case]
    members = [*members, *GOOD.items()]
    bad = 2 if case == "twice apart" else 1
    with pytest.raises(
        UserError, match=rf"{bad} of {bad + 1} records could not .*first: '{key}': .*{reason}.*rep"
    ):
        one(tmp_path, members)
    with caplog.at_level(logging.WARNING):
        source = one(tmp_path, members, max_bad_fraction=0.67)
    assert [record["key"] for record in everything(source)] == ["a/g"]
    assert source.captions(0) == ["good"]
    assert source.bad_records == bad
    found = dict(source.bad())
    assert len(found) == bad
    assert re.search(reason, found[key])
    assert repr(key) in caplog.text


def test_names_that_are_not_utf8_are_bad(tmp_path):
    name = "b\udcff"  # how tarfile is told the byte 0xff
    members = [(f"{name}.png", png("red")), (f"{name}.txt", b"1"), *GOOD.items()]
    source = one(tmp_path, members, max_bad_fraction=0.5)
    assert list(source.bad()) == [("a/b\\xff", "has a name that is not UTF-8")]


def test_the_log_counts_by_reason_and_names_a_few(tmp_path, caplog):
    members = records(20)
    for i in range(12):
        del members[f"{i:09d}.txt"]
    with caplog.at_level(logging.WARNING):
        source = one(tmp_path, members, max_bad_fraction=0.6)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("12 records left out: each has a picture and no .txt")
    assert "'a/000000000', 'a/000000001', 'a/000000002'" in message
    assert len(list(source.bad())) == 12
    with pytest.raises(UserError, match=r"12 of 20 records .* max_bad_fraction=0.59 allows"):
        one(tmp_path, members, max_bad_fraction=0.59)


def test_a_cut_shard_gives_what_is_before_the_cut(tmp_path, caplog):
    for i in range(3):
        write_tar(tmp_path / f"{i}.tar", records(10, start=10 * i))
    cut = tmp_path / "1.tar"
    whole = cut.read_bytes()
    # Four records of 4 blocks, and of the fifth the picture and half the caption.
    cut.write_bytes(whole[: 4 * 4 * 512 + 3 * 512 + 5])
    pattern = f"{tmp_path}/*.tar"
    # Lost are five nobody has seen, as whole shards hold ten, and one without its caption.
    with pytest.raises(UserError, match=r"6 of 30 rec.*: '1/000000014': has a \.txt .*cut short"):
        Source(pattern)
    with pytest.raises(UserError, match="6 of 30"):
        Source(pattern, max_bad_fraction=0.19)
    with caplog.at_level(logging.WARNING):
        source = Source(pattern, max_bad_fraction=0.2)
    assert [source.captions(i)[0] for i in range(24)] == [
        f"caption {i}" for i in [*range(14), *range(20, 30)]
    ]
    assert "'1'" in caplog.text
    assert "runs past the end of the file; copy it again" in caplog.text


def test_every_cut_of_a_shard_leaves_right_pairs_or_an_error(tmp_path):
    whole = write_tar(tmp_path / "w.tar", records(3)).read_bytes()
    content = 3 * 4 * 512
    for length in range(0, content + 1, 128):
        path = tmp_path / f"cut-{length}.tar"
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"cut-{length}"):
            Source(path)
        complete = sum(length >= i * 2048 + 3 * 512 + len("caption 0") for i in range(3))
        if complete:
            source = Source(path, max_bad_fraction=0.9)
            assert len(source) == complete
            for i, record in enumerate(everything(source)):
                assert record["image"] == png("red", (i + 1, 4))
                assert record["captions"] == [f"caption {i}"]


def test_what_is_no_shard(tmp_path):
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", records(2)).read_bytes()))
    with pytest.raises(UserError, match=r"a\.tar\.gz is compressed with gzip.*unpack it"):
        Source(packed)
    with pytest.raises(UserError, match=r"none\.tar"):
        Source(tmp_path / "none.tar")
    page = tmp_path / "page.tar"
    page.write_text("<html>404</html>" * 100)
    with pytest.raises(UserError, match=r"first: 'page': cannot be read as an uncompressed tar"):
        Source([tmp_path / "a.tar", page])
    assert len(Source([tmp_path / "a.tar", page], max_bad_fraction=0.5)) == 2
    with pytest.raises(UserError, match=r"empty\.tar .* no record"):
        Source(write_tar(tmp_path / "empty.tar", {"plain": b"x"}))
    with pytest.raises(UserError, match="max_bad_fraction=2 is not between"):
        Source(page, max_bad_fraction=2)


def test_a_shard_that_changes_or_shrinks_while_it_is_read(tmp_path):
    path = write_tar(tmp_path / "a.tar", records(3))
    source = Source(path)
    assert source.captions(2) == ["caption 2"]
    with open(path, "r+b") as file:
        file.truncate(2048)
    with pytest.raises(UserError, match=r"a\.tar has changed since it was opened"):
        source.captions(2)


def test_an_index_removed_while_it_is_in_use_does_not_matter_until_it_is_opened(tmp_path):
    source = Source(write_tar(tmp_path / "a.tar", records(3)))
    first = everything(source)
    (tmp_path / "a.tar.index").unlink()
    assert everything(source) == first
    webdataset._opened.cache_clear()
    with pytest.raises(UserError, match=r"a\.tar\.index is gone; start again"):
        source[0]


@pytest.mark.parametrize("kept", [True, False], ids=["file", "memory"])
def test_threads_and_pickled_copies_read_the_same(tmp_path, kept):
    for i in range(4):
        write_tar(tmp_path / f"{i}.tar", records(25, start=25 * i))
        if not kept:
            (tmp_path / f"{i}.tar.index").mkdir()
    members = records(5, start=100)
    del members["000000102.txt"]  # so that some records are passed over
    write_tar(tmp_path / "4.tar", members)
    source = Source(f"{tmp_path}/?.tar", max_bad_fraction=0.01)
    expected = everything(source)
    assert len(expected) == 104
    copy = pickle.loads(pickle.dumps(source))
    order = list(range(104)) * 10
    random.Random(0).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.encoded, order)) == [expected[i] for i in order]


def test_more_shards_than_indices_kept_open(tmp_path):
    count = webdataset._OPEN_INDICES + 20
    for i in range(count):
        write_tar(tmp_path / f"{i:03d}.tar", {"0.png": b"%d" % i, "0.txt": b"%d" % i})
    source = Source(f"{tmp_path}/*.tar")
    for _ in range(2):
        assert [source.captions(i) for i in range(count)] == [[str(i)] for i in range(count)]
    assert webdataset._opened.cache_info().currsize == webdataset._OPEN_INDICES


record_parts = st.fixed_dictionaries(
    {"jpg": st.binary(min_size=1, max_size=1200), "txt": st.just(b"")},
    optional={"cls": st.just(b"3"), "json": st.just(b'{"a": 1}'), "npy": st.binary(max_size=700)},
)
stems = st.text(
    st.characters(exclude_characters="/.\0", exclude_categories=["Cs"]), min_size=1, max_size=130
).filter(lambda name: not name.startswith("__"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.dictionaries(stems, record_parts, min_size=1, max_size=6), data=st.data())
def test_a_picture_always_keeps_its_caption(tmp_path, parts, data):
    """Whatever the names and the order of members: each caption names the record it belongs to."""
    members = [
        (f"{stem}.{extension}", stem.encode().hex().encode() if extension == "txt" else content)
        for stem, contents in parts.items()
        for extension, content in contents.items()
    ]
    members = data.draw(st.permutations(members))
    format = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    source = Source(write_tar(tmp_path / "a.tar", members, format))
    assert len(source) == len(parts)
    for i, record in enumerate(everything(source)):
        stem = record["key"].removeprefix("a/")
        assert record["captions"] == source.captions(i) == [stem.encode().hex()]
        assert record["image"] == parts[stem]["jpg"]
        assert record.get("class_id") == (3 if "cls" in parts[stem] else None)
        assert record.get("a") == (1 if "json" in parts[stem] else None)
    assert {record["key"] for record in everything(source)} == {f"a/{stem}" for stem in parts}


def test_the_real_flickr8k_pack_in_tars(shared, tmp_path):
    """Its first pictures with their five captions each, written as shards of three members."""
    pack = shared / "data" / "flickr8k"
    pictures = TarIndex(pack / "dev-000.tar")
    with (pack / "captions_dev.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(next(file)) for _ in range(60)]
    expected = {}
    for shard in range(3):
        members = []
        for line in lines[20 * shard : 20 * shard + 20]:
            name, captions = line["image"].removesuffix(".jpg"), line["captions"]
            picture = pictures.read(line["image"])
            expected[f"flickr-{shard}/{name}"] = (images.decode(picture), captions)
            members += [
                (f"{name}.jpg", picture),
                (f"{name}.txt", "\n".join(captions).encode()),
                (f"{name}.json", json.dumps({"captions": captions, "split": "dev"}).encode()),
            ]
        write_tar(tmp_path / f"flickr-{shard}.tar", members)
    for caption in ("txt:lines", "json:captions"):
        source = Source(f"{tmp_path}/flickr-{{0..2}}.tar", caption=caption)
        assert len(source) == 60
        for record in source:
            image, captions = expected[record["key"]]
            np.testing.assert_array_equal(record["image"], image)
            assert record["captions"] == [text.strip() for text in captions]
            assert record["split"] == "dev"
    with pytest.raises(BadRecord, match="has 5 lines: say caption='txt:lines'"):
        Source(f"{tmp_path}/*.tar").captions(0)


def test_training_shuffles_over_all_shards_and_resumes_to_the_next_example(tmp_path):
    for i in range(4):
        write_tar(tmp_path / f"{i}.tar", records(6, start=6 * i))
    source = Source(f"{tmp_path}/?.tar")
    words = tokenizer.train([source.captions(i)[0] for i in range(24)], 64, 16)
    examples = Examples(source, words, seed=0, batch_size=4, image_size=8, resize="squash")
    stream = TrainLoader(examples, num_threads=2)
    seen = [next(stream)["key"] for _ in range(3)]
    state = json.loads(json.dumps(stream.state()))
    rest = [next(stream) for _ in range(3)]
    stream.close()
    keys = [key for batch in [*seen, *(batch["key"] for batch in rest)] for key in batch]
    assert sorted(keys) == sorted(source.encoded(i)["key"] for i in range(24))
    assert all(len({key[0] for key in batch}) > 1 for batch in seen)
    again = TrainLoader(pickle.loads(pickle.dumps(examples)), num_threads=2)
    again.restore(state)
    for batch in rest:
        assert next(again)["key"] == batch["key"]
    again.close()


def test_shards_behind_urls_are_read_in_few_requests(tmp_path, monkeypatch, caplog):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for i in range(2):
        path = write_tar(tmp_path / f"{i}.tar", records(3, start=3 * i))
        store.pipe_file(f"/webdataset-test/{i}.tar", path.read_bytes())
    shards = "memory://webdataset-test/{0..1}.tar"
    with caplog.at_level(logging.WARNING):
        in_memory = everything(Source(shards))
    assert "built anew each time" in caplog.text
    source = Source(shards, index_dir=str(tmp_path / "indices"))
    assert len(list((tmp_path / "indices").iterdir())) == 2
    requests = []
    read = RemoteFile.read
    monkeypatch.setattr(
        RemoteFile, "read", lambda self, *place: requests.append(place) or read(self, *place)
    )
    assert everything(source) == in_memory
    assert [r["captions"] for r in in_memory] == [[f"caption {i}"] for i in range(6)]
    assert len(requests) == 6, "one for a record"
    store.rm("/webdataset-test", recursive=True)

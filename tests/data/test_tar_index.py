"""The index file: records from members in any order; whole and of this tar, or built anew."""

import io
import json
import os
import struct
import tarfile
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import contents, link, opened, png, records, write_tar

from capjax.data import tar_index
from capjax.data.tar_index import ShardIndex, stamp_of
from capjax.data.tar_index_build import open_indices
from capjax.data.tars import IndexedFile
from capjax.errors import UserError


class InMemory:
    path = "memory://memory.tar"  # a URL: nothing is written beside it

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def read(self, offset, size):
        return self.data[offset : offset + size]


stems = st.text("ab é", min_size=1, max_size=3)
folders = st.sampled_from(["", "x/", "x.y/", "x/y/"])
extensions = st.sampled_from(["jpg", "txt", "JSON", "seg.png", ""])


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.builds(lambda f, s, e: f"{f}{s}.{e}", folders, stems, extensions),
        st.binary(min_size=1, max_size=900),
        max_size=12,
    ).flatmap(lambda members: st.permutations(list(members.items())))
)
def test_members_in_any_order_become_the_same_records(pairs):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    file = InMemory(buffer.getvalue())
    expected = {}
    for name, content in pairs:
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        expected.setdefault(folder + slash + stem, {})[extension.lower()] = content
    (kept,) = open_indices([file], processes=0)
    assert contents(file, kept) == expected


def test_names_follow_webdatasets_rule():
    split = {
        b"000.jpg": (b"000", b"jpg"),
        b"a/b/000.JPG": (b"a/b/000", b"jpg"),
        b"a.b/000.seg.png": (b"a.b/000", b"seg.png"),
        b"000.": (b"000", b""),
        b"000": None,
        b"a.b/000": None,
        b".hidden.jpg": None,
        b"a/.hidden.jpg": None,
        b"__meta__/000.jpg": None,
        b"__meta__.jpg": (b"__meta__", b"jpg"),
        b"a/__b__/000.jpg": (b"a/__b__/000", b"jpg"),
    }
    assert {name: tar_index._split(name) for name in split} == split


def test_an_index_is_written_once_and_then_used(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", records(5))
    first, kept = opened(path)
    assert kept.place == f"{path}.index"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "a.tar.index"]
    assert len(first) == 5
    monkeypatch.setattr(tar_index, "build", None)
    assert opened(path)[0] == first


def damage_magic(data):
    return b"X" + data[1:]


def damage_header(data):
    return data[:30] + b"X" + data[31:]


def another_version(data):
    header = json.loads(data[16:].split(b"}   ")[0].partition(b"\0")[0] + b"}")
    header["version"] += 1
    text = json.dumps(header).encode()
    return struct.pack("<8sII", data[:8], len(text), zlib.crc32(text)) + text + data[-64:]


BROKEN = {
    "empty": lambda data: b"",
    "short": lambda data: data[:10],
    "no arrays": lambda data: data[:200],
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "magic": damage_magic,
    "header": damage_header,
    "version": another_version,
    "text": lambda data: b"a note of somebody else\n" * 100,
}


@pytest.mark.parametrize("how", BROKEN, ids=lambda name: name.replace(" ", "-"))
def test_a_broken_or_foreign_index_is_built_anew(tmp_path, how):
    path = write_tar(tmp_path / "a.tar", records(3))
    first, _ = opened(path)
    place = tmp_path / "a.tar.index"
    whole = place.read_bytes()
    place.write_bytes(BROKEN[how](whole))
    assert tar_index.read_header(place) is None
    assert opened(path)[0] == first
    assert place.read_bytes() == whole


def test_an_index_of_another_tar_is_built_anew(tmp_path):
    a = write_tar(tmp_path / "a.tar", records(3))
    b = write_tar(tmp_path / "b.tar", records(3, start=10))
    os.utime(a, ns=(5, 5))
    os.utime(b, ns=(5, 5))
    assert a.stat().st_size == b.stat().st_size
    opened(a)
    (tmp_path / "b.tar.index").write_bytes((tmp_path / "a.tar.index").read_bytes())
    assert sorted(opened(b)[0]) == [f"{i:09d}" for i in range(10, 13)]


def test_a_changed_tar_is_indexed_anew(tmp_path):
    path = write_tar(tmp_path / "a.tar", records(3))
    opened(path)
    write_tar(path, records(4, start=7))
    assert sorted(opened(path)[0]) == [f"{i:09d}" for i in range(7, 11)]


def test_a_tar_of_the_same_size_and_time_is_noticed_when_read(tmp_path):
    """Nothing in size and time tells: but the headers before the contents do."""
    path = write_tar(tmp_path / "a.tar", records(3))
    os.utime(path, ns=(5, 5))
    opened(path)
    write_tar(path, dict(reversed(records(3).items())))
    os.utime(path, ns=(5, 5))
    with pytest.raises(
        UserError, match=r"a\.tar is not the tar that was indexed.*remove its index"
    ):
        opened(path)


def test_a_tar_that_changes_while_it_is_indexed_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", records(3))
    file = IndexedFile(path)
    write_tar(path, records(4))
    with pytest.raises(UserError, match="has changed since it was opened"):
        open_indices([file])
    assert os.listdir(tmp_path) == ["a.tar"]


def test_an_index_that_goes_or_changes_is_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", records(2))
    file = IndexedFile(path)
    (kept,) = open_indices([file])
    with pytest.raises(UserError, match=r"is no longer that of a\.tar"):
        ShardIndex(kept.place, "a.tar", (1, 2))
    os.remove(kept.place)
    with pytest.raises(UserError, match="is gone; start again"):
        ShardIndex(kept.place, "a.tar", stamp_of(file))


def test_hard_links_repeat_members_and_links_of_other_kinds_do_not(tmp_path):
    pairs = [
        ("a.png", png("red")),
        ("plain", b"no record"),
        link("b.png", "a.png", tarfile.LNKTYPE),
        link("b.txt", "plain", tarfile.LNKTYPE),
        link("c.png", "later.png", tarfile.LNKTYPE),
        link("d.png", "a.png"),
    ]
    file = IndexedFile(write_tar(tmp_path / "a.tar", pairs))
    (kept,) = open_indices([file])
    flaws = {kind.members: kind.count for kind in kept.header.signatures}
    assert flaws == {
        (("png", ""),): 1,
        (("png", ""), ("txt", "")): 1,
        (("png", "is a hard link"),): 1,
        (("png", "is a symbolic link"),): 1,
    }
    index = ShardIndex(kept.place, "a.tar", stamp_of(file))
    assert index.read(file, 1, [0, 1]) == [png("red"), b"no record"]


def test_a_million_records_open_at_once(tmp_path):
    """The header alone is read: the arrays of a large index are not touched on opening."""
    n = 1_000_000
    rows = np.arange(2 * n, dtype=np.uint64)
    index = tar_index.pack(
        "big.tar",
        (1, 2),
        [("", (("jpg", ""), ("txt", "")))],
        {
            "signature": np.zeros(n, np.uint64),
            "first": rows[:n] * 2,
            "name_end": rows[1 : n + 1] * 9,
            "names": np.frombuffer(b"%09d" * n % tuple(range(n)), np.uint8),
            "offset": rows * 5120 * 1000 + 512,
            "size": rows % 5000,
            "crc": rows * 0,
        },
    )
    place = tmp_path / "big.tar.index"
    tar_index.write(str(place), index)
    assert len(index) < 60 * n
    del index
    begin = time.perf_counter()
    opened = ShardIndex(str(place), "big.tar", (1, 2))
    assert opened.name(n - 1) == "000999999"
    assert opened.header.records == n
    assert time.perf_counter() - begin < 0.5

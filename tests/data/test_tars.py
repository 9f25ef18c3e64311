"""The offset index: against tarfile itself, and on every tar that is not whole."""

import gzip
import io
import os
import pathlib
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from capjax.data import tars
from capjax.data.tars import IndexedFile, TarIndex
from capjax.errors import UserError

MEMBERS = {f"folder/{i:03d}.jpg": bytes([i]) * (i * 37) for i in range(40)}


def write_tar(path, members=MEMBERS, format=tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "format",
    [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT],
    ids=["ustar", "gnu", "pax"],
)
def test_reads_every_member_of_every_dialect(tmp_path, format):
    long_names = {} if format == tarfile.USTAR_FORMAT else {"é" * 90 + ".jpg": b"long"}
    members = MEMBERS | long_names
    index = TarIndex(write_tar(tmp_path / "a.tar", members, format))
    assert len(index) == len(members)
    assert {name: index.read(name) for name in reversed(members)} == members
    assert "folder/000.jpg" in index
    assert "missing.jpg" not in index
    with pytest.raises(KeyError):
        index.read("missing.jpg")


def test_names_without_dot_slash_links_followed_folders_left_out(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("./pictures")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for data in (b"first", b"second"):
            info = tarfile.TarInfo("./pictures/a.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for kind, name in ((tarfile.LNKTYPE, "./hard.jpg"), (tarfile.SYMTYPE, "./soft.jpg")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "./pictures/a.jpg"
            tar.addfile(link)
    index = TarIndex(path)
    assert sorted(index.entries) == ["hard.jpg", "pictures/a.jpg"]
    assert index.read("pictures/a.jpg") == index.read("hard.jpg") == b"second"


def test_an_empty_archive_has_no_members(tmp_path):
    assert len(TarIndex(write_tar(tmp_path / "a.tar", {}))) == 0


def test_threads_and_pickled_copies_read_the_same_bytes(tmp_path):
    index = TarIndex(write_tar(tmp_path / "a.tar"))
    copy = pickle.loads(pickle.dumps(index))
    names = list(MEMBERS) * 50
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy.read, names)) == [MEMBERS[name] for name in names]


def test_more_shards_than_open_files_are_allowed(tmp_path):
    indices = [
        TarIndex(write_tar(tmp_path / f"{i}.tar", {"a": b"%d" % i}))
        for i in range(tars._OPEN_FILES + 40)
    ]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda index: index.read("a"), indices * 3))
    assert read == [b"%d" % i for i in range(len(indices))] * 3
    assert tars._open.cache_info().currsize == tars._OPEN_FILES
    open_tars = [name for fd in pathlib.Path("/proc/self/fd").glob("*") if (name := _target(fd))]
    assert len(open_tars) <= tars._OPEN_FILES


def _target(fd):
    """What an open descriptor leads to, if that is a tar of ours (Linux only; elsewhere none)."""
    try:
        return target if (target := os.readlink(fd)).endswith(".tar") else None
    except OSError:
        return None


def test_every_cut_is_noticed(tmp_path):
    """A tar cut anywhere before its end-of-archive block is refused, by name."""
    whole = write_tar(tmp_path / "whole.tar", {f"{i}": bytes(700) for i in range(3)}).read_bytes()
    content = 3 * (512 + 1024)
    assert whole[content:].strip(b"\0") == b""
    for length in [*range(0, content, 128), content, content + 100]:
        cut = tmp_path / f"cut-{length}.tar"
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"cut-{length}\.tar .*again"):
            TarIndex(cut)


def test_the_member_that_runs_past_the_end_is_named(tmp_path):
    cut = write_tar(tmp_path / "cut.tar")
    cut.write_bytes(cut.read_bytes()[: 512 + 512 + 10])
    with pytest.raises(
        UserError, match=r"cut\.tar is cut short: member 'folder/001.jpg' runs past"
    ):
        TarIndex(cut)


def test_a_damaged_header_does_not_hide_what_follows(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a": b"1", "b": b"2", "c": b"3"})
    data = bytearray(path.read_bytes())
    data[1024:1030] = b"\xff" * 6  # the header of "b"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar is cut short or damaged at byte 1,024"):
        TarIndex(path)


def test_what_is_no_plain_tar_is_refused_with_the_remedy(tmp_path):
    plain = write_tar(tmp_path / "a.tar")
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UserError, match=r"a\.tar\.gz is compressed with gzip.*unpack it"):
        TarIndex(packed)
    text = tmp_path / "text.tar"
    text.write_text("not a tar\n" * 200)
    with pytest.raises(UserError, match=r"text\.tar cannot be read as an uncompressed tar"):
        TarIndex(text)
    with pytest.raises(UserError, match=r"none\.tar: No such file.*check the path"):
        TarIndex(tmp_path / "none.tar")
    with pytest.raises(UserError, match="is not a file"):
        TarIndex(tmp_path)


def test_a_file_changed_under_the_index_is_noticed(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"abcdef")
    file = IndexedFile(path)
    assert file.read(2, 3) == b"cde"
    assert file.read(0, 0) == b""
    path.write_bytes(b"something longer")
    with pytest.raises(UserError, match=r"a\.bin has changed since it was opened"):
        file.read(0, 3)
    again = IndexedFile(path)
    assert again.read(10, 6) == b"longer"
    with pytest.raises(UserError, match="has become shorter"):
        again.read(10, 7)
    os.rename(path, tmp_path / "b.bin")
    assert again.read(10, 6) == b"longer"
    copy = pickle.loads(pickle.dumps(again))
    tars._open.cache_clear()
    with pytest.raises(UserError, match=r"a\.bin: No such file.*was there when it was indexed"):
        copy.read(0, 1)

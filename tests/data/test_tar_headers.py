"""Headers against tarfile: every dialect it writes, members of odd kinds, and damage anywhere."""

import contextlib
import io
import tarfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import link, write_tar

from capjax.data.tar_headers import BLOCK, HARD_LINK, SPARSE, TarDamage, members
from capjax.data.tars import IndexedFile

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class InMemory:
    """Bytes that read like an `IndexedFile`."""

    path = "memory.tar"

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def read(self, offset, size):
        assert offset + size <= self.size, "asked beyond the end"
        return self.data[offset : offset + size]


def tar_of(pairs, format):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


names = st.lists(
    st.text(st.characters(exclude_characters="/\0\n", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
    max_size=4,
).map("/".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=8),
    st.sampled_from(FORMATS[1:]),
    st.sampled_from([BLOCK, 3 * BLOCK, 1 << 14]),
)
def test_whatever_tarfile_writes_is_read_as_tarfile_reads_it(pairs, format, window):
    data = tar_of(pairs, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name.encode(), m.offset_data, m.size) for m in tar if m.isreg()]
    found = list(members(InMemory(data), window))
    assert [(m.name, m.offset, m.size) for m in found] == expected
    assert [m.kind for m in found] == [""] * len(found)
    for member, (_, content) in zip(found, pairs, strict=True):
        assert data[member.offset : member.offset + member.size] == content
        assert member.crc == zlib.crc32(data[member.offset - BLOCK : member.offset])


def test_long_ustar_names_are_joined(tmp_path):
    name = "a" * 60 + "/" + "b" * 90 + ".jpg"
    (member,) = members(IndexedFile(write_tar(tmp_path / "a.tar", {name: b"x"})))
    assert member.name == name.encode()


@pytest.mark.parametrize("format", FORMATS[1:], ids=["gnu", "pax"])
def test_long_links_and_kinds(tmp_path, format):
    target = "deep/" * 30 + "a.jpg"
    device = tarfile.TarInfo("device")
    device.type = tarfile.CHRTYPE
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    pairs = [
        (target, b"content"),
        link("hard.jpg", target, tarfile.LNKTYPE),
        link("soft.jpg", target),
        ("", device),
        ("", pipe),
        ("", folder),
        ("last.txt", b"z"),
    ]
    found = list(members(IndexedFile(write_tar(tmp_path / "a.tar", pairs, format))))
    assert [(m.name.decode(), m.kind) for m in found] == [
        (target, ""),
        ("hard.jpg", HARD_LINK),
        ("soft.jpg", "is a symbolic link"),
        ("device", "is a device"),
        ("pipe", "is a pipe"),
        ("last.txt", ""),
    ]
    assert found[1].target == target.encode()


def header(name, size, kind=b"0", patch=()):
    """A header block of ours with its checksum, `patch`: (place, bytes) pairs put into it."""
    info = tarfile.TarInfo(name)
    info.size = size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = kind
    for place, content in patch:
        block[place : place + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content):
    return content + bytes(-len(content) % BLOCK)


def test_sparse_members_are_known_and_what_follows_is_found():
    more = bytearray(BLOCK)
    old = header("old.bin", 700, b"S", [(482, b"\1")])
    more[504] = 1
    data = old + more + bytes(BLOCK) + padded(b"s" * 700)
    fields = b"".join(
        b"%d %s\n" % (len(text) + 4, text) for text in (b"GNU.sparse.major=1", b"GNU.sparse.name=n")
    )
    data += header("pax", len(fields), b"x") + padded(fields)
    data += header("GNUSparseFile.0/n", 100) + padded(b"n" * 100)
    data += header("plain.txt", 3) + padded(b"abc") + bytes(2 * BLOCK)
    found = list(members(InMemory(data)))
    assert [(m.name, m.kind) for m in found] == [
        (b"old.bin", SPARSE),
        (b"n", SPARSE),
        (b"plain.txt", ""),
    ]
    assert data[found[-1].offset :][:3] == b"abc"


def test_sizes_beyond_octal_are_binary():
    size = 9 << 30  # more than eleven octal digits hold
    block = header("big.bin", 0, patch=[(124, b"\x80" + size.to_bytes(11, "big"))])
    with pytest.raises(TarDamage, match=r"is cut short: member 'big\.bin' runs past the end"):
        list(members(InMemory(block)))
    walked = members(InMemory(block))
    assert next(walked).size == size
    with pytest.raises(TarDamage):
        next(walked)


def test_signed_checksums_of_old_tars():
    block = bytearray(header("é.txt", 0))
    signed = sum(b - 256 * (b > 127) for b in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    (member,) = members(InMemory(bytes(block) + bytes(2 * BLOCK)))
    assert member.name == "é.txt".encode()


def test_tars_joined_end_to_end_are_noticed():
    one = tar_of([("a.txt", b"1")], tarfile.GNU_FORMAT)
    walked = members(InMemory(one + one))
    assert next(walked).name == b"a.txt"
    with pytest.raises(TarDamage, match=r"another tar behind its end at byte 1,024.*one by one"):
        next(walked)
    assert len(list(members(InMemory(one + b"\1" * 4096)))) == 1  # rubbish there is no tar


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_never_moves_a_member(data):
    """Bytes changed, cut or added anywhere: what is found still has its own content or is gone."""
    pairs = [(f"{i}.txt", bytes([65 + i]) * (300 * i)) for i in range(5)]
    whole = tar_of(pairs, data.draw(st.sampled_from(FORMATS)))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        places = {m.name.encode(): (m.offset_data, m.size) for m in tar}
    place = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    cut = data.draw(st.booleans())
    broken = whole[:place] if cut else whole[:place] + noise + whole[place + len(noise) :]
    found = []
    with contextlib.suppress(TarDamage):  # the end of a tar may be damaged and nothing lost
        found.extend(members(InMemory(broken)))
    for member in found:
        if member.kind == "":
            assert places[member.name] == (member.offset, member.size)


@pytest.mark.parametrize(
    "note",
    [b"no number\n", b"99 path=x\n", b"9 path x\n", b"0 a=b\n", b"12 size=x12\n"],
    ids=["text", "long", "no-equals", "zero", "size"],
)
def test_fields_of_pax_that_are_none_are_damage(note):
    data = header("pax", len(note), b"x") + padded(note) + header("a.txt", 0) + bytes(2 * BLOCK)
    with pytest.raises(TarDamage):
        list(members(InMemory(data)))


def test_a_note_of_gigabytes_is_damage_and_not_read():
    data = header("long", 1 << 30, b"L") + bytes(2 * BLOCK)
    with pytest.raises(TarDamage, match="no valid header"):
        list(members(InMemory(data)))

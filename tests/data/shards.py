"""Small tars for the tests of tar shards, and what their indices say of them."""

import io
import os
import tarfile

from PIL import Image

from capjax.data.tar_index import ShardIndex, stamp_of
from capjax.data.tar_index_build import open_indices
from capjax.data.tars import IndexedFile


def png(colour, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members, format=tarfile.USTAR_FORMAT):
    """A tar of (name, content) pairs, or of a dict; a content may be a ready `TarInfo`, without."""
    pairs = members.items() if isinstance(members, dict) else members
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in pairs:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def records(count, start=0, colour="red"):
    """{name: content} of so many pictures and their captions, named as img2dataset names them."""
    members = {}
    for i in range(start, start + count):
        members[f"{i:09d}.png"] = png(colour, (i % 7 + 1, 4))
        members[f"{i:09d}.txt"] = f"caption {i}".encode()
    return members


def contents(file, kept):
    """{record: {extension: content}} of a whole index."""
    index = ShardIndex(kept.place, os.path.basename(file.path), stamp_of(file))
    found = {}
    for record in range(index.header.records):
        kind = index.header.signatures[index.signature(record)]
        read = index.read(file, record, range(len(kind.members)))
        found[index.name(record)] = {
            extension: content for (extension, _), content in zip(kind.members, read, strict=True)
        }
    return found


def opened(path, **options):
    """({record: {extension: content}}, where the index is) of the tar at `path`."""
    file = IndexedFile(path)
    (kept,) = open_indices([file], **options)
    return contents(file, kept), kept

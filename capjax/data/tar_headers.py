"""The headers of an uncompressed tar, in order, without reading what lies between them.

Understands the POSIX dialects (ustar and pax, IEEE Std 1003.1, `pax`, "ustar Interchange Format"
and "pax Interchange Format"), GNU's long names and large sizes, and the tars from before POSIX.
The standard library's `tarfile` reads the same and more, three times slower, and takes a
damaged header for the end of the archive, behind which members would silently be gone.

Units: offsets and sizes are bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

BLOCK = 512
FILE, HARD_LINK, SPARSE = "", "is a hard link", "is stored sparse"

_ZEROS = bytes(BLOCK)
# Bytes fetched at a header. Of a local file as much as spans the small members between two
# pictures; a request to a store takes as long for megabytes.
_LOCAL_WINDOW, _REMOTE_WINDOW = 1 << 14, 1 << 23
# Headers that lie no further apart are reached sooner by reading all between them in one go than
# by waiting for each: then the system is asked to fetch so many bytes ahead.
_DENSE, _AHEAD = 1 << 18, 1 << 23
_LONGEST_NOTE = 1 << 20  # of a long name or of pax's own fields; more is no tar but damage
_BEHIND_THE_END = 1 << 16  # how far behind the end another tar is looked for
_LINKS_AND_DEVICES = {
    b"2": "is a symbolic link",
    b"3": "is a device",
    b"4": "is a device",
    b"6": "is a pipe",
}


class TarDamage(Exception):
    """The tar cannot be read further: `offset`, and `reason`, which goes on from the tar's name."""

    def __init__(self, offset: int, reason: str):
        super().__init__(offset, reason)
        self.offset, self.reason = offset, reason


class Member(NamedTuple):
    """One member that is no folder.

    kind: `FILE`, `HARD_LINK`, `SPARSE`, or what it is instead, said after its name ("is a device").
    offset, size: where its content lies. crc: CRC-32 of the block before that, its header.
    target: of a hard link, the name of the member that it repeats.
    """

    name: bytes
    kind: str
    offset: int
    size: int
    crc: int
    target: bytes


def members(file: Any, window: int | None = None) -> Iterator[Member]:
    """The members of `file`, which has `path`, `size` and `read(offset, size)`.

    A member that runs past the end of the file is the last one, of the kind "is cut short".

    Raises `TarDamage` after the members before the damage, where the tar is cut short, has a
    damaged header, or another tar behind its end.
    """
    if window is None:
        window = _REMOTE_WINDOW if "://" in file.path else _LOCAL_WINDOW
    total = file.size
    data, start = b"", 0  # what was fetched last, and where it begins
    position, count = 0, 0
    fetch_at = 0  # where the system is asked for more
    ask = getattr(file, "will_read", None)
    notes: dict[bytes, bytes] = {}  # what pax and GNU say of the member to come
    while True:
        place = position - start
        if not 0 <= place <= len(data) - BLOCK:
            if ask and fetch_at <= position < _DENSE * (count + 1):
                ask(position, _AHEAD)
                fetch_at = position + _AHEAD // 2
            data = file.read(position, min(window, total - position)) if position < total else b""
            start, place = position, 0
        block = data[place : place + BLOCK]
        if len(block) < BLOCK or not (block == _ZEROS or _is_header(block)):
            raise _no_header(position, total)
        if block == _ZEROS:
            return _check_end(file, position)
        header, position = position, position + BLOCK
        kind = block[156:157]
        size = _number(block[124:136])
        if size is None:
            raise _no_header(header, total)
        if kind in b"LKxXg":
            if size > _LONGEST_NOTE or position + size > total:
                raise _no_header(header, total)
            note = file.read(position, size)
            position += -(-size // BLOCK) * BLOCK
            if kind == b"L":
                notes[b"path"] = note.partition(b"\0")[0]
            elif kind == b"K":
                notes[b"linkpath"] = note.partition(b"\0")[0]
            elif kind != b"g":  # what holds for all members is the time or a comment
                if (fields := _pax_fields(note)) is None:
                    raise _no_header(header, total)
                notes.update(fields)
            continue
        name = notes.get(b"path") or _name(block)
        target = b""
        if kind == b"5" or (kind == b"\0" and name.endswith(b"/")):
            notes.clear()
            continue
        if kind in _LINKS_AND_DEVICES:
            what, size = _LINKS_AND_DEVICES[kind], 0
        elif kind == b"1":
            what, size = HARD_LINK, 0
            target = notes.get(b"linkpath") or _text(block[157:257])
        else:
            what = FILE if kind in b"0\x007" else f"is of the unknown type {kind!r}"
            if b"size" in notes:
                if not notes[b"size"].isdigit():
                    raise _no_header(header, total)
                size = int(notes[b"size"])
            if kind == b"S":
                what, position = SPARSE, _behind_sparse_map(file, block, position)
            elif notes and any(key.startswith(b"GNU.sparse.") for key in notes):
                what, name = SPARSE, notes.get(b"GNU.sparse.name", name)
        count += 1
        cut = position + size > total
        yield Member(
            name, "is cut short" if cut else what, position, size, zlib.crc32(block), target
        )
        if cut:
            shown = name.decode("utf-8", "backslashreplace").removeprefix("./")
            raise TarDamage(
                header,
                f"is cut short: member {shown!r} runs past the end of the file; copy it again",
            )
        notes.clear()
        position += -(-size // BLOCK) * BLOCK


def _is_header(block: bytes) -> bool:
    """Whether the checksum is that of the block, its own field taken as spaces."""
    stored = _number(block[148:156])
    if stored is None:
        return False
    blanked = block[:148] + b"        " + block[156:]
    # Adler-32 keeps 1 + the sum of the bytes, modulo 65,521: faster than to add up 512 numbers.
    if zlib.adler32(blanked) & 0xFFFF == (stored + 1) % 65521:
        return True
    return stored == sum(byte - 256 * (byte > 127) for byte in blanked)  # old tars' signed sum


def _number(field: bytes) -> int | None:
    """Octal digits, or GNU's binary number where the first byte is 0x80; None for anything else."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0]
    try:
        value = int(digits, 8)
    except ValueError:
        return None if digits.strip(b" ") else 0
    return value if value >= 0 else None


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[345] and block[257:263] == b"ustar\0":  # GNU keeps times in place of the prefix
        return _text(block[345:500]) + b"/" + name
    return name


def _pax_fields(note: bytes) -> dict[bytes, bytes] | None:
    """{keyword: value} of records "length keyword=value\\n"; None where they are not of that form.

    The length counts the whole record, itself included.
    """
    fields = {}
    while note and note[0]:
        digits = note.partition(b" ")[0]
        if not digits.isdigit() or not len(digits) < int(digits) <= len(note):
            return None
        keyword, equals, value = note[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if not equals:
            return None
        fields[keyword] = value
        note = note[int(digits) :]
    return fields


def _behind_sparse_map(file: Any, block: bytes, position: int) -> int:
    """Where the content of GNU's old sparse member begins: its map may go on in more blocks."""
    more = block[482]
    while more and position + BLOCK <= file.size:
        more = file.read(position, BLOCK)[504]
        position += BLOCK
    return position


def _no_header(position: int, total: int) -> TarDamage:
    if position == 0:
        what = "is empty" if total == 0 else "it begins with no valid header"
        return TarDamage(
            0, f"cannot be read as an uncompressed tar ({what}); copy or write it again"
        )
    return TarDamage(
        position,
        f"is cut short or damaged at byte {position:,} (no end-of-archive block there); copy or "
        "write it again",
    )


def _check_end(file: Any, end: int) -> None:
    """Tars joined end to end: a reader stops at the first one's end, and the rest would be lost."""
    rest = file.read(end, min(_BEHIND_THE_END, file.size - end))
    for place in range(0, len(rest) - BLOCK + 1, BLOCK):
        block = rest[place : place + BLOCK]
        if block != _ZEROS:
            if _is_header(block):
                raise TarDamage(
                    end,
                    f"has another tar behind its end at byte {end:,}: tars cannot be joined with "
                    "cat; give them one by one",
                )
            return

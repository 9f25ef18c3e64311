"""Where TensorFlow Datasets keeps a prepared set: data_dir/name[/config]/version/, and its files.

Raises `UserError` for a set, config or version that is not there, and for a file that is missing or
cut short.
"""

from __future__ import annotations

import os
import re
from typing import Any

from capjax.data.files import is_remote
from capjax.errors import UserError

FORMAT = "array_record"  # the one of TFDS's formats that can be read by random access
_NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.+-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_WRITTEN_LAST = ("dataset_info.json", "features.json")


def newest_version(root: str, builder: str) -> str:
    """The folder of the set in the data_dir `root`: "name", "name/config", "name/config:1.0.0".

    TFDS's own search imports the code of the set to learn its configs; some of that code imports
    TensorFlow.
    """
    parts = _NAME.fullmatch(builder)
    if parts is None:
        raise UserError(f"{builder!r} names no set; write name, name/config or name:1.0.0")
    if is_remote(root):
        raise UserError(f"{FORMAT} files are read from a file system; copy or mount {root} first")
    base = os.path.join(root, parts["name"])
    if not os.path.isdir(base):
        raise UserError(
            f"there is no prepared set {parts['name']!r} in {root}; name its data_dir, or prepare "
            f"it, with tensorflow installed, by `tfds build {parts['name']} --data_dir={root} "
            f"--file_format={FORMAT}`, or by capjax.data.tfds_builders if it is one of these"
        )
    configs = sorted(
        name for name in os.listdir(base) if not _VERSION.fullmatch(name) and _versions(base, name)
    )
    if parts["config"]:
        base = os.path.join(base, parts["config"])
    elif not _versions(base) and len(configs) == 1:
        base = os.path.join(base, configs[0])
    versions = _versions(base)
    if not versions and configs:
        raise UserError(f"{builder!r} needs its config; {root} has {', '.join(configs)}")
    if not versions:
        raise UserError(f"{base} holds no version that was prepared to its end; prepare it again")
    chosen = parts["version"] or versions[-1]
    if chosen not in versions:
        raise UserError(f"{base} has no version {chosen}; it has {', '.join(versions)}")
    return os.path.join(base, chosen)


def _versions(*folder: str) -> list[str]:
    """The versions that were prepared to their end, the newest last."""
    base = os.path.join(*folder)
    names = os.listdir(base) if os.path.isdir(base) else []
    whole = [
        name
        for name in names
        if _VERSION.fullmatch(name)
        and all(os.path.isfile(os.path.join(base, name, f)) for f in _WRITTEN_LAST)
    ]
    return sorted(whole, key=lambda name: tuple(map(int, name.split("."))))


def check_shard(instruction: Any) -> None:
    """Raises `UserError` where the file of a TFDS `FileInstruction` is missing or cut short.

    Reading alone would not tell: of a file that is cut short array_record gives empty records.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    path = os.fspath(instruction.filename)
    try:
        reader = ArrayRecordReader(path)
        count = reader.num_records()
        reader.close()
    except RuntimeError:
        count = 0
    if count != instruction.examples_in_shard:
        what = f"has {count:,} records" if os.path.isfile(path) else "is missing"
        raise UserError(
            f"{path} {what}, where {instruction.examples_in_shard:,} were prepared; copy it again"
        )

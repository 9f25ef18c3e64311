"""Shards of records in three forms: how each is written. Pictures go in as they are stored.

tar            {number}.{jpg, png ..} and {number}.json of each record: WebDataset's form
parquet        columns key, image (bytes), captions (list of text) and fields (JSON)
array_record   see `capjax.data.array_records`
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from capjax.data import array_records
from capjax.data.encoded import extension, fields_of
from capjax.errors import UserError

Record = dict[str, Any]
_ROW_GROUP = 64  # records of Parquet that are read for one: a few megabytes of photographs


def write_tar(path: Path, records: Iterable[Record], first: int) -> None:
    """`first` is the number of the first record in the whole set."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, record in enumerate(records, start=first):
            head = {"key": record["key"], "captions": record["captions"], **fields_of(record)}
            text = json.dumps(head, ensure_ascii=False).encode()
            for suffix, data in ((extension(record["image"]), record["image"]), ("json", text)):
                info = tarfile.TarInfo(f"{number:09}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_parquet(path: Path, records: Iterable[Record], first: int) -> None:
    """Row groups of a few records, because a group is read as a whole."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise UserError(
            "Parquet needs the package pyarrow: pip install 'capjax[parquet]'"
        ) from error
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("image", pa.binary()),
            ("captions", pa.list_(pa.string())),
            ("fields", pa.string()),
        ]
    )
    # Pictures are compressed already.
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        rows: list[Record] = []
        for record in records:
            others = json.dumps(fields_of(record), ensure_ascii=False)
            rows.append({n: record[n] for n in ("key", "image", "captions")} | {"fields": others})
            if len(rows) == _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))


def write_array_record(path: Path, records: Iterable[Record], first: int) -> None:
    """The numbers of records are their places."""
    array_records.write(path, records)


WRITERS: dict[str, Callable[[Path, Iterable[Record], int], None]] = {
    "tar": write_tar,
    "parquet": write_parquet,
    "array_record": write_array_record,
}

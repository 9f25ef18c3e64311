"""A data set of one's own: a JSONL manifest of pictures and their captions.

One record a line:

    {"image": "dog.jpg", "captions": ["a dog runs .", "a brown dog"]}

`caption` (one string) may stand in place of `captions`, or the name of a class as `label`: such a
record has no captions, which is enough to classify it, but not to train on it. `image` is a file
below the manifest's folder (or below `image_root`); where the line has a `shard`, that names an
uncompressed tar in the same place and `image` a member of it. `key` or `id` names the record, by
default the image does. Every other field stays with the record. Blank lines are allowed.

On opening, every line is checked without decoding a picture. The manifest then remains its own
store: an opened source holds where each line and each picture begins, 36 bytes a record, and reads
the line again when the record is asked for.

N: records. H, W: height and width of a picture.
"""

from __future__ import annotations

import os
from typing import Any

from capjax.data import images
from capjax.data.manifest_lines import Lines, check_folder
from capjax.errors import BadRecord


class Source:
    """N records {key, image uint8 [H,W,3], captions, ...} in the order of the manifest's lines.

    Args:
      path: the manifest.
      image_root: the folder of pictures and shards, where that is not the manifest's.
      split: keep only the lines whose field `split` equals this.
      limit: keep the first `limit` good records and look no further.
      max_bad_fraction: the share of the lines that may be unusable. Each such line is logged with
        its number and left out; beyond the share, opening fails.

    Raises `UserError` for a missing or empty manifest, for too many bad lines (naming the first),
    and where no record is left. `source[i]` raises `BadRecord` where that picture cannot be read
    or decoded.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        image_root: str | os.PathLike | None = None,
        split: str | None = None,
        limit: int | None = None,
        max_bad_fraction: float = 0.0,
    ):
        check_folder("image_root", image_root)
        self._lines = Lines(
            path,
            field="image",
            noun="picture",
            root=image_root,
            split=split,
            limit=limit,
            max_bad_fraction=max_bad_fraction,
        )
        self.path, self.bad_lines = self._lines.path, self._lines.bad

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.encoded(i)
        try:
            return {**record, "image": images.decode(record["image"])}
        except ValueError as error:
            raise BadRecord(record["key"], str(error)) from None

    def encoded(self, i: int) -> dict[str, Any]:
        """Record `i` with its picture as it is stored: `image` is bytes."""
        return self._lines.encoded(i)

    def captions(self, i: int) -> list[str]:
        """The captions of record `i`, without reading its picture."""
        return self._lines.captions(i)

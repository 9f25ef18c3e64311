"""Pictures given by their paths, without captions: files, and folders with files below them.

`Source(paths)` is a source like any other (see `manifest.py`); its records have no captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capjax.data import images
from capjax.errors import BadRecord, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


class Source:
    """Records {key: path as given, image: uint8 [H,W,3], captions: []}, in sorted order.

    A folder stands for the pictures in it and in its folders; files are taken whatever their
    name. UserError for a path that does not exist, a folder without a picture, and a path that
    is given twice.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths: list[str] = []
        for given in map(Path, paths):
            if given.is_dir():
                found = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES)
                if not found:
                    raise UserError(
                        f"the folder {str(given)!r} holds no picture ({', '.join(SUFFIXES)})"
                    )
                self.paths += map(str, found)
            elif given.is_file():
                self.paths.append(str(given))
            else:
                raise UserError(f"there is no picture and no folder at {str(given)!r}")
        seen = set()
        for path in self.paths:
            if path in seen:
                raise UserError(f"the picture {path!r} is given twice: name it once")
            seen.add(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        """BadRecord where the picture cannot be read or decoded."""
        path = self.paths[index]
        try:
            image = images.decode(Path(path).read_bytes())
        except (OSError, ValueError) as error:
            raise BadRecord(path, str(error)) from error
        return {"key": path, "image": image, "captions": []}

    def captions(self, index: int) -> list[str]:
        """None: these pictures have no captions."""
        return []

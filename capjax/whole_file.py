"""Files that appear complete or not at all, whatever stops the program that writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from capjax.errors import UserError


@contextmanager
def whole_file(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A file to write (mode "w", UTF-8, or "wb") that takes the name `path` when the block ends.

    An exception in the block leaves what stood at `path` before.

    Raises:
      UserError: the place cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        if error.filename not in (None, str(partial), str(path)):
            raise  # of another file: the block read something
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)

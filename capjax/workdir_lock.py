"""One run to a workdir: a second one that starts in it is refused while the first lives.

The lock is the kernel's (flock) on `DIR/lock`: it ends with the process that holds it, however that
ends, so a file left by a killed run blocks nobody. Between hosts it holds as far as their shared
file system passes flock on (NFS does; some parallel ones do not, and there the lock is silently
that of one host). The file says who holds it.

Raises `UserError` where the directory is held by another run or cannot be written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from capjax.errors import UserError

NAME = "lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the lock of `directory`, which is created if missing."""
    path = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write to {str(directory)!r}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Anything else: a file system without locks, on which nothing can be promised.
            if error.errno in _HELD:
                raise UserError(
                    f"another run trains in {str(directory)!r} ({_holder(path)}): wait for it, "
                    "stop it, or choose another --workdir"
                ) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(file)


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "it says not who it is"
    except OSError as error:
        return f"unknown: {error.strerror}"

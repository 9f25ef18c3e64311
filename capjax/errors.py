"""What a user did wrong, told in one sentence; and how every entry point ends.

Library code raises `UserError` (or `BadRecord` for one record of a data set) with a sentence that
names the thing and the remedy. Entry points run under `exit_cleanly`, which prints that sentence
and exits with code 2, without a traceback. Any other exception is a fault of ours and keeps its
traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A mistake in what the user gave: one sentence that names the thing and the remedy."""


class BadRecord(UserError):
    """One record of a data set that cannot be used; `key` names it, `reason` says why."""

    def __init__(self, key: str, reason: str):
        super().__init__(f"record {key!r}: {reason}")
        self.key = key
        self.reason = reason


def exit_cleanly(main: Callable[[], int | None]) -> None:
    """Runs `main` and ends the process: 0 or main's code, 2 on `UserError`, 130 on Ctrl-C."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"{_program()}: {error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"{_program()}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.stdout.flush()
    sys.exit(code)


def _program() -> str:
    """The module that was started, as the user would name it: `capjax.train`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else sys.argv[0]

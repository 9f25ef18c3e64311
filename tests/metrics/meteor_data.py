"""Whether METEOR's data files are there, for tests that need them."""

import pytest

from capjax.errors import UserError
from capjax.metrics import meteor_files


def missing() -> str:
    """Why they are not, or nothing."""
    try:
        meteor_files.folder()
    except UserError as error:
        return str(error)
    return ""


needed = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

"""Lengths of captions."""

import pytest

from capjax.errors import UserError
from capjax.metrics.lengths import lengths


def test_words_and_characters_by_hand():
    got = lengths(["a dog", " a  cat runs. ", ""])
    assert got["words"] == pytest.approx(5 / 3)
    assert got["words_sd"] == pytest.approx((((2 - 5 / 3) ** 2 + (4 / 3) ** 2 + 25 / 9) / 3) ** 0.5)
    assert got["characters"] == pytest.approx((5 + 12 + 0) / 3)
    assert lengths(["four"])["characters_sd"] == 0


def test_no_captions():
    with pytest.raises(UserError, match="no captions"):
        lengths([])

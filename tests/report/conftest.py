"""Published numbers in the form that reports take: guiding (arXiv 2307.16686), Table 1."""

import pytest

COLUMNS = ("guidance_scale", "bleu_4", "cider", "ref_only_clipscore", "clipscore", "recall_at_1")
TABLE_1 = (
    (1.0, 0.361, 1.261, 0.900, 0.775, 0.265),
    (1.2, 0.351, 1.241, 0.899, 0.785, 0.313),
    (1.5, 0.315, 1.132, 0.891, 0.796, 0.366),
    (2.0, 0.209, 0.786, 0.862, 0.808, 0.446),
    (3.0, 0.115, 0.417, 0.820, 0.808, 0.494),
    (4.0, 0.065, 0.173, 0.766, 0.782, 0.447),
)


@pytest.fixture
def rows():
    return [dict(zip(COLUMNS, line, strict=True)) for line in TABLE_1]

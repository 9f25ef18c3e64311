"""Every number of guiding's tables (arXiv 2307.16686), as rows like those that are measured here.

Values are fractions as `capjax.report.table` takes them: BLEU-4, METEOR, ROUGE-L, CIDEr and recalls
are the printed numbers divided by 100; CLIP-S and its relatives are as printed. The judge is CLIP
ViT-B/32; pictures are COCO's 5,000 of Karpathy's test split where nothing else is said.

A row's setting is `guidance_scale`, or `alpha`, `beta` and `shots` with a language model, or `name`
for a system of others. A value that the paper does not print is absent.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

_PERCENT = ("bleu_4", "meteor", "rouge_l", "cider", "recall_at_1", "recall_at_5", "recall_at_10")
_TABLE = (
    *("bleu_4", "meteor", "rouge_l", "cider", "ref_only_clipscore"),
    *("clipscore", "recall_at_1", "recall_at_5", "recall_at_10", "ref_clipscore"),
)
_SYSTEM = tuple(name for name in _TABLE if name != "ref_only_clipscore")


def _row(setting: Row, columns: tuple[str, ...], values: tuple[float | None, ...]) -> Row:
    told = {
        name: round(value / 100, 6) if name in _PERCENT else value
        for name, value in zip(columns, values, strict=True)
        if value is not None
    }
    return setting | told


def _gammas(rows: dict[float, tuple]) -> list[Row]:
    return [_row({"guidance_scale": scale}, _TABLE, values) for scale, values in rows.items()]


TABLE_1 = _gammas(  # the bottleneck model
    {
        1.0: (36.1, 30.5, 58.2, 126.1, 0.900, 0.775, 26.5, 51.9, 64.1, 0.830),
        1.2: (35.1, 30.0, 57.5, 124.1, 0.899, 0.785, 31.3, 57.4, 69.3, 0.835),
        1.5: (31.5, 28.4, 54.4, 113.2, 0.891, 0.796, 36.6, 64.0, 75.0, 0.838),
        2.0: (20.9, 23.3, 43.0, 78.6, 0.862, 0.808, 44.6, 71.7, 81.7, 0.831),
        3.0: (11.5, 17.1, 29.4, 41.7, 0.820, 0.808, 49.4, 75.7, 84.7, 0.811),
        4.0: (6.5, 12.3, 18.4, 17.3, 0.766, 0.782, 44.7, 71.3, 80.9, 0.771),
    }
)
TABLE_B1 = _gammas(  # attention pooling
    {
        1.0: (36.8, 30.9, 59.0, 130.3, 0.901, 0.777, 27.2, 52.7, 64.6, 0.832),
        1.2: (36.3, 30.6, 58.4, 129.1, 0.901, 0.786, 32.0, 58.0, 69.4, 0.837),
        1.5: (32.7, 29.0, 55.3, 118.0, 0.892, 0.798, 38.2, 64.9, 75.6, 0.840),
        2.0: (22.1, 24.0, 44.3, 84.6, 0.861, 0.814, 48.6, 73.7, 83.5, 0.833),
        3.0: (12.2, 17.5, 30.7, 45.7, 0.816, 0.815, 53.6, 78.2, 86.0, 0.812),
        4.0: (7.2, 12.1, 19.7, 20.7, 0.767, 0.788, 48.2, 72.1, 80.1, 0.773),
    }
)
TABLE_1_OTHERS = [  # baselines that Table 1 lists: B4 M R C | CLIP-S R@1 R@5 R@10 | RefCLIP-S
    _row({"name": name}, _SYSTEM, values)
    for name, values in {
        "CLIP-Captioner": (38.7, 29.3, 58.6, 126.0, 0.754, None, None, None, 0.814),
        "UMT-BITG": (37.3, 28.2, 57.9, 122.6, 0.772, None, None, None, None),
        "X-LAN+SCST+GEG": (36.5, 28.7, 57.5, 121.7, None, 28.1, 50.3, 67.2, None),
        "CIDEr + CLIP-S reward": (37.7, 28.8, 58.3, 124.6, 0.772, 24.4, 50.2, 63.1, None),
        "CLIP-S reward": (6.2, 18.7, 31.6, 11.2, 0.860, 42.5, 71.6, 82.2, None),
        "ZeroCap": (2.6, 11.5, None, 14.6, 0.87, None, None, None, 0.79),
        "UMT-BITG without CLIP": (37.3, 28.3, 58.1, 122.5, 0.725, None, None, None, None),
        "VinVL-large": (41.0, 30.9, 59.4, 140.9, 0.78, None, None, None, 0.84),
    }.items()
]
TABLE_1_OTHERS[-1]["ref_only_clipscore"] = 0.91

TABLE_2 = [
    dict(
        zip(
            ("guidance_scale", "words", "words_sd", "characters", "characters_sd"), row, strict=True
        )
    )
    for row in (
        (1.0, 9.6, 1.4, 44.2, 7.2),
        (1.2, 9.6, 1.4, 44.7, 7.4),
        (1.5, 9.4, 1.4, 45.7, 7.8),
        (2.0, 9.3, 2.4, 50.3, 18.6),
        (3.0, 10.7, 7.6, 69.0, 56.1),
        (4.0, 19.9, 16.9, 161.2, 140.0),
    )
]

TABLE_3 = _gammas(  # trained on web data alone, guided by scale
    {
        1.0: (8.2, 8.3, 21.8, 21.8, 0.766, 0.694, 9.0, 19.5, 26.1, 0.725),
        1.2: (8.6, 9.5, 24.5, 25.0, 0.781, 0.718, 12.7, 27.2, 35.1, 0.745),
        1.5: (8.9, 10.0, 25.6, 25.2, 0.780, 0.728, 16.7, 33.8, 43.0, 0.750),
        2.0: (8.1, 9.7, 23.9, 22.9, 0.777, 0.741, 21.2, 40.8, 51.1, 0.755),
        3.0: (7.1, 8.7, 20.0, 18.5, 0.767, 0.753, 25.8, 47.8, 58.3, 0.756),
        4.0: (6.4, 7.5, 16.3, 13.9, 0.749, 0.743, 27.3, 48.5, 58.1, 0.742),
    }
) + [  # by a language model with captions of COCO's training set as its prompt
    _row({"alpha": 1.0, "beta": 1.0, "shots": shots}, _TABLE, values)
    for shots, values in {
        2: (12.7, 14.6, 34.7, 39.3, 0.806, 0.688, 10.0, 23.7, 32.4, 0.740),
        5: (15.0, 16.6, 39.1, 48.6, 0.827, 0.712, 12.4, 27.5, 37.5, 0.763),
        10: (16.2, 17.7, 40.5, 53.1, 0.835, 0.723, 13.0, 30.5, 41.0, 0.773),
        20: (17.4, 18.4, 41.6, 57.4, 0.839, 0.728, 14.4, 32.2, 42.7, 0.777),
        50: (18.1, 19.1, 42.5, 59.7, 0.840, 0.729, 13.4, 32.5, 43.9, 0.778),
    }.items()
]
TABLE_3_OTHERS = [
    _row({"name": name}, ("bleu_4", "meteor", "rouge_l", "cider"), values)
    for name, values in {
        "ZeroCap": (2.6, 11.5, None, 14.6),
        "MAGIC": (12.9, 17.4, 39.9, 49.3),
        "Flamingo": (None, None, None, 84.3),
        "DeCap, 560 captions": (None, None, None, 51.4),
        "DeCap, all captions": (24.7, 25.0, None, 91.2),
        "CapDec": (26.4, 25.1, 51.8, 91.8),
    }.items()
]

TABLE_B2 = [  # Stanford Dogs: captions that name a breed, and how many of these the right one
    {"guidance_scale": scale, "mentioned": mentioned, "correct": correct}
    for scale, mentioned, correct in (
        (1.0, 0.019, 0.617),
        (1.2, 0.062, 0.690),
        (1.5, 0.159, 0.697),
        (2.0, 0.424, 0.585),
        (3.0, 0.670, 0.533),
    )
]

PAIRS_JUDGED = 4945  # of 5,000 pictures; at the others both captions are the same
TABLE_B3 = [  # per cent of the answers: for gamma = 1, for gamma = 2, indifferent
    {"form": form, "question": question, "percent": percent, "p_value": p}
    for form, question, percent, p in (
        ("separate", "better", (48.0, 49.8, 2.2), 0.22),
        ("separate", "more descriptive", (47.7, 49.5, 2.8), 0.21),
        ("same", "better", (50.5, 46.6, 2.9), 0.006),
        ("same", "more descriptive", (45.8, 52.7, 1.5), 1e-6),
    )
]

_RETRIEVAL = ("cosine", "recall_at_1", "recall_at_5", "recall_at_10")
TABLE_B4 = {  # other encoders than CLIP: the mean cosine, and recalls
    retriever: [
        _row({"guidance_scale": scale}, _RETRIEVAL, values) for scale, values in rows.items()
    ]
    for retriever, rows in {
        "CoCa-2B": {
            1.0: (0.125, 40.1, 65.3, 75.1),
            1.2: (0.128, 46.5, 72.0, 80.3),
            1.5: (0.131, 55.5, 78.9, 86.4),
            2.0: (0.135, 64.9, 86.4, 91.3),
            3.0: (0.134, 66.5, 87.0, 91.4),
            4.0: (0.126, 60.3, 81.8, 87.5),
        },
        "own": {  # the captioner's own CoCa-Base
            1.0: (0.843, 49.4, 75.0, 84.1),
            1.2: (0.859, 56.2, 80.1, 88.1),
            1.5: (0.877, 64.6, 85.9, 91.5),
            2.0: (0.887, 73.0, 91.6, 95.3),
            3.0: (0.890, 77.7, 92.4, 95.8),
            4.0: (0.875, 74.7, 90.1, 94.0),
        },
    }.items()
}

FIGURE_6 = [  # the two points that the text names
    {"guidance_scale": 1.6, "recall_at_1": 0.390, "cider": 1.093},
    {"alpha": 5.0, "beta": 2.5, "recall_at_1": 0.396, "cider": 1.144},
]
ALPHAS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0)  # of Figure 6's sweep
BETA_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # beta / alpha of Figure 6's sweep
SHOTS = (2, 5, 10, 20, 50)
MINIBATCH = 4  # pictures that share one drawing of few-shot captions

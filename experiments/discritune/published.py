"""The numbers of DiscriTune (arXiv 2304.01662) that could be checked, as rows.

P@1 is in per cent: CLIP ViT-B/32 picks the picture among 100 by a caption of a beam of 5. The
paper's own tables were not at hand: `where` says who quotes a number. Its tables of BLEU and CIDEr
after tuning, nocaps in-domain and the rows of BLIP are unverified.

`START` is what the captioners score before they are tuned: CIDEr and BLEU-4 (100 times the natural
scale) and words a caption, computed from the authors' stored captions by a tokenizer that may be
off by half a point.
"""

from __future__ import annotations

from typing import NamedTuple


class Number(NamedTuple):
    """system: the captioner and the data it was trained on; test: where it is measured."""

    system: str
    test: str
    measure: str
    value: float
    where: str


REPRODUCTION = "a reproduction, quoting the paper"
SUMMARY = "a summary of the paper"
TESTS = ("COCO", "Conceptual", "Flickr30k", "nocaps near", "nocaps out", "Concadia")
_TABLE = {
    "ClipCap, COCO": (74.2, 73.0, 65.9, 77.3, 73.9, 53.74),
    "DiscriTune, COCO": (84.8, 83.6, 79.4, 86.0, 82.5, 64.79),
}
NUMBERS = (
    *(
        Number(system, test, "P@1", value, REPRODUCTION)
        for system, values in _TABLE.items()
        for test, value in zip(TESTS, values, strict=True)
    ),
    Number("ClipCap, Conceptual", "Conceptual", "P@1", 82.5, SUMMARY),
    Number("DiscriTune, Conceptual", "Conceptual", "P@1", 94.4, SUMMARY),
    Number("DiscriTune, Conceptual", "nocaps out", "P@1", 88.7, SUMMARY),
    Number("DiscriTune", "Conceptual", "people's accuracy", 47.6, SUMMARY),
    Number("people's captions", "Conceptual", "people's accuracy", 42.8, SUMMARY),
    Number("ClipCap", "Conceptual", "people's accuracy", 36.2, SUMMARY),
)
OTHERS_RUNS = (  # what the reproduction itself measured
    Number("ClipCap, COCO", "COCO", "P@1", 74.64, "the reproduction's own"),
    Number("DiscriTune, COCO", "COCO", "P@1", 77.68, "the reproduction's own, as described"),
    Number(
        "DiscriTune, COCO",
        "COCO",
        "P@1",
        88.74,
        "the reproduction's own, rewards standardised in each batch",
    ),
)


class Start(NamedTuple):
    system: str
    test: str
    cider: float
    bleu_4: float
    words: float


START = (
    Start("ClipCap, COCO", "COCO", 108.5, 32.6, 10.0),
    Start("ClipCap, COCO", "Flickr30k", 41.6, 17.2, 9.9),
    Start("ClipCap, COCO", "Conceptual", 23.7, 1.5, 10.1),
    Start("ClipCap, Conceptual", "COCO", 37.2, 8.5, 6.3),
    Start("ClipCap, Conceptual", "Flickr30k", 27.5, 8.3, 6.5),
    Start("ClipCap, Conceptual", "Conceptual", 86.9, 7.2, 7.0),
)

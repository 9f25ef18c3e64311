"""The numbers of CLIP reward (arXiv 2205.13115) that could be checked, as rows.

COCO, Karpathy's test split. BLEU-4, METEOR, ROUGE-L and CIDEr are as printed, 100 times the natural
scale; CLIP-S as printed; recalls are text-to-image by CLIP ViT-B/32, in per cent. The paper's own
tables were not at hand: `where` says who quotes a row. What is None is unverified, and so are all
values of BERTScore, RefCLIP-S and FineCapEval.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """reward: what the captioner was tuned on, "MLE" for none."""

    reward: str
    where: str
    bleu_4: float | None = None
    meteor: float | None = None
    rouge_l: float | None = None
    cider: float | None = None
    clip_s: float | None = None
    recalls: tuple[float, float, float] | None = None  # at 1, 5 and 10


GUIDING = "Table 1 of arXiv 2307.16686"
ROWS = (
    Row("MLE", "a question to the authors, quoting the paper", cider=110.3),
    Row("MLE", "the same question: another run of the released code", cider=106.5),
    Row("CIDEr", "a listing of benchmarks", 38.2, 28.7, 58.5, 124.9),
    Row("CIDEr + CLIP-S", GUIDING, 37.7, 28.8, 58.3, 124.6, 0.772, (24.4, 50.2, 63.1)),
    Row("CLIP-S", GUIDING, 6.2, 18.7, 31.6, 11.2, 0.860, (42.5, 71.6, 82.2)),
    Row("CLIP-S + grammar", "not seen"),
)

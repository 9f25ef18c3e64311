"""CIDEr in both forms: `cider`, which coco-caption prints as CIDEr, and `cider_plain`.

Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015. Both compare
vectors of n-gram counts weighted with log(N / images whose references hold the n-gram), by cosine,
averaged over the orders 1..4 and over an image's references, times 10. `cider` (the paper's
CIDEr-D, without stemming) clips the candidate's weights at the reference's and multiplies with a
Gaussian of the difference in length. Papers print it times 100 over ten: 1.26 here is their 126.

Two things are as in the published code, not as in the paper: a caption's length is its number of
bigrams, and an n-gram that no image holds counts as if one did.

The images counted are those of the references, or of another corpus (`document_frequency`). Of the
references of a single image all weights are zero: each n-gram is in every image. The corpus value
is the mean over images. Legend: N images, R reference captions.
"""

from __future__ import annotations

import numpy as np

from capjax.metrics.ngrams import MAX_ORDER
from capjax.metrics.references import Candidates, weight_norms

SIGMA = 6.0


def cider(candidates: Candidates) -> np.ndarray:
    """CIDEr-D, the CIDEr of coco-caption, of each image: float64 [N], 0 to 10."""
    references = candidates.references
    similarity = _similarity(candidates, clip=True)
    bigrams = np.maximum(candidates.ngrams.lengths - 1, 0)
    reference_bigrams = np.maximum(references.ngrams.lengths - 1, 0)
    difference = bigrams[references.image] - reference_bigrams
    penalty = np.exp(-(difference**2) / (2 * SIGMA**2))
    return _mean_over_references(candidates, similarity * penalty)


def cider_plain(candidates: Candidates) -> np.ndarray:
    """CIDEr without clipping and length penalty, of each image: float64 [N], 0 to 10."""
    return _mean_over_references(candidates, _similarity(candidates, clip=False))


def _similarity(candidates: Candidates, clip: bool) -> np.ndarray:
    """Cosine of each reference caption and its image's candidate, mean over the orders: [R]."""
    references = candidates.references
    captions = len(references.image)
    inverse = references.document_frequencies.inverse(candidates.ngrams)
    total = np.zeros(captions)
    for n in range(MAX_ORDER):
        order, run = candidates.ngrams.orders[n], candidates.run[n]
        postings = references.postings[n]
        idf = inverse[n][order.gram]
        norm = weight_norms(order, idf, len(references))

        # One row for each reference caption that shares an n-gram with its image's candidate.
        hit = np.flatnonzero(run >= 0)
        start, stop = postings.start[run[hit]], postings.stop[run[hit]]
        rows = stop - start
        entry = np.arange(rows.sum()) + np.repeat(start - (np.cumsum(rows) - rows), rows)
        pair = np.repeat(hit, rows)
        reference_weight = postings.count[entry] * idf[pair]
        weight = order.count[pair] * idf[pair]
        if clip:
            weight = np.minimum(weight, reference_weight)
        product = np.bincount(postings.caption[entry], weight * reference_weight, captions)

        scale = norm[references.image] * references.norms[n]
        total += np.divide(product, scale, out=np.zeros(captions), where=scale != 0)
    return total / MAX_ORDER


def _mean_over_references(candidates: Candidates, similarity: np.ndarray) -> np.ndarray:
    references = candidates.references
    total = np.bincount(references.image, similarity, len(references))
    return 10.0 * total / references.captions_per_image

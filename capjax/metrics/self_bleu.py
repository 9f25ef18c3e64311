"""Self-BLEU and mBLEU: how alike several captions of one image are; lower is more diverse.

Every caption is scored against the other captions of its image as references. Two corpus values are
made from that, and papers mean either:
  self_bleu_n  the mean of the BLEU-n of single captions (Zhu et al., "Texygen", SIGIR 2018; called
               mBLEU in arXiv 2306.11593 on fusing ranked captions, whose set is all captions of a
               system: give them as the captions of one image);
  mbleu_n      BLEU-n of the corpus made of each image's first caption, of that of its second, ...,
               and the mean of these (Shetty et al., "Speaking the Same Language", ICCV 2017, and
               the diverse-captioning papers after it).
BLEU is coco-caption's (`bleu`). Both depend on how many captions an image has.

Legend: N images, C captions each, R = all captions; a row of statistics as in `bleu`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.bleu import bleu_from_statistics
from capjax.metrics.diversity import caption_sets
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.ngrams import MAX_ORDER
from capjax.metrics.references import Postings, References, Tokens

_FAR = 1 << 32  # more than any length


def self_bleu(tokens: Sequence[Sequence[Tokens]]) -> dict[str, Measure]:
    """self_bleu_1 to self_bleu_4 over N images, which may differ in their number of captions.

    Args:
      tokens: for each image the tokens of each of its captions.

    Raises:
      UserError: no images, or an image with fewer than two captions.
    """
    per_image = _mean_of_captions(_sets_of_several(tokens))
    return {f"self_bleu_{n}": mean_of(per_image[:, n - 1]) for n in range(1, MAX_ORDER + 1)}


def mbleu(tokens: Sequence[Sequence[Tokens]]) -> dict[str, Measure]:
    """mbleu_1 to mbleu_4 over N images with C captions each; an image has its self-BLEU.

    Raises:
      UserError: as `self_bleu`; images with different numbers of captions.
    """
    sets = _sets_of_several(tokens)
    captions = int(sets.captions_per_image[0])
    other = np.flatnonzero(sets.captions_per_image != captions)
    if len(other):
        raise UserError(
            f"image number {other[0]} has {sets.captions_per_image[other[0]]} captions and the"
            f" first {captions}: mBLEU needs as many of each, so cut them or use self-BLEU"
        )
    statistics = self_bleu_statistics(sets).reshape(len(sets), -1).astype(np.float64)
    per_image = _mean_of_captions(sets)

    def corpus(weights: np.ndarray, n: int) -> float:
        sums = (weights @ statistics).reshape(captions, -1)
        return float(np.mean(bleu_from_statistics(sums)[:, n - 1]))

    return {
        f"mbleu_{n}": Measure(per_image[:, n - 1], lambda weights, n=n: corpus(weights, n))
        for n in range(1, MAX_ORDER + 1)
    }


def self_bleu_statistics(sets: References) -> np.ndarray:
    """BLEU's counts of each caption against the others of its image: int64 [R, 10].

    The largest count of an n-gram in the other captions is the largest of all, or the second where
    the caption itself holds the largest alone. So a set of thousands costs no square.
    """
    length = sets.ngrams.lengths
    correct = [_correct(postings, len(length)) for postings in sets.postings]
    guessed = [np.maximum(0, length - n) for n in range(MAX_ORDER)]
    return np.stack([length, _closest_length(sets), *correct, *guessed], axis=1)


def _correct(postings: Postings, captions: int) -> np.ndarray:
    """N-grams of each caption that another caption of its image holds too, clipped: [R]."""
    if not len(postings.keys):
        return np.zeros(captions, np.int64)
    run = np.repeat(np.arange(len(postings.keys)), postings.stop - postings.start)
    largest = postings.max_count[run]
    holds_it = postings.count == largest
    holders = np.add.reduceat(holds_it.astype(np.int64), postings.start)[run]
    second = np.maximum.reduceat(np.where(holds_it, 0, postings.count), postings.start)[run]
    others = np.where(holds_it & (holders == 1), second, largest)
    matched = np.bincount(postings.caption, np.minimum(postings.count, others), captions)
    return matched.astype(np.int64)


def _closest_length(sets: References) -> np.ndarray:
    """The length nearest to that of each caption among the others of its image: [R].

    Sorted by length they are its neighbours; of two as near the shorter counts, as in BLEU.
    """
    order = np.lexsort((sets.ngrams.lengths, sets.image))
    length, image = sets.ngrams.lengths[order], sets.image[order]
    same = image[1:] == image[:-1]
    shorter = np.concatenate([[-_FAR], np.where(same, length[:-1], -_FAR)])
    longer = np.concatenate([np.where(same, length[1:], _FAR), [_FAR]])
    closest = np.empty_like(length)
    closest[order] = np.where(length - shorter <= longer - length, shorter, longer)
    return closest


def _mean_of_captions(sets: References) -> np.ndarray:
    """Mean BLEU-1..4 of the captions of each image: [N, 4]."""
    values = bleu_from_statistics(self_bleu_statistics(sets))
    return np.add.reduceat(values, sets.first, axis=0) / sets.captions_per_image[:, None]


def _sets_of_several(tokens: Sequence[Sequence[Tokens]]) -> References:
    sets = caption_sets(tokens)
    few = np.flatnonzero(sets.captions_per_image < 2)
    if len(few):
        raise UserError(
            f"image number {few[0]} has one caption: self-BLEU compares at least two of an image"
        )
    return sets

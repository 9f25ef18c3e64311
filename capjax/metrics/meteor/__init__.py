"""METEOR 1.5 as coco-caption runs it, in NumPy: the same numbers without Java.

    meteor(references.align(candidates)).value
    sentence_meteor(["a", "dog", "runs"], [["a", "dog", "is", "running"]])

The files of this package in the order in which they run:
  normaliser   tokens -> the words that are compared
  lexicon      words and phrases of all captions, and which are related (stemmer, wordnet,
               paraphrases)
  matching     all matches between candidate and reference
  alignment    certain matches, and the steps of the search for the others
  beam         the search
  scoring      counts -> score

Data files of METEOR are needed: see `meteor_files`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.measure import Measure, of_sums
from capjax.metrics.meteor import alignment, beam, matching, scoring
from capjax.metrics.meteor.lexicon import Lexicon
from capjax.metrics.meteor.normaliser import normalise, normalise_line
from capjax.metrics.references import Candidates, References

__all__ = ["meteor", "sentence_meteor"]

_PAIRS = 1 << 16  # of captions, aligned at a time
_SEPARATOR = "|||"  # between captions in what coco-caption sends to METEOR

Words = list[str]


def meteor(candidates: Candidates) -> Measure:
    """METEOR of each image, and of the corpus from the summed counts of its images: 0 to 1.

    The reference with the highest score stands for its image; of equals the first. So the order of
    an image's references never changes its score, but may change the counts that the corpus sums.

    Raises:
      UserError: METEOR's data files are not installed or damaged.
    """
    words = [_candidate_words(tokens) for tokens in candidates.tokens]
    return of_sums(_best_statistics(words, candidates.references.once(_words)), scoring.score)


def sentence_meteor(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """METEOR of one tokenised candidate against its tokenised references.

    Raises:
      UserError: no reference, or as `meteor`.
    """
    if not references:
        raise UserError("METEOR has no reference caption to compare with: give at least one")
    words = [word for reference in references for word in _reference_words(list(reference))]
    statistics = _best_statistics([_candidate_words(list(candidate))], [words])
    return float(scoring.score(statistics)[0])


def _words(references: References) -> list[list[Words]]:
    return [
        [words for tokens in captions for words in _reference_words(tokens)]
        for captions in references.tokens
    ]


def _reference_words(tokens: list[str]) -> list[Words]:
    """One caption, or several where a separator is inside the caption."""
    line = " ".join(tokens)
    if _SEPARATOR not in line:
        return [normalise(tokens)]
    return [normalise_line(part) for part in line.split(_SEPARATOR)]


def _candidate_words(tokens: list[str]) -> Words:
    line = " ".join(tokens)
    if _SEPARATOR not in line:
        return normalise(tokens)
    return normalise_line(line.replace(_SEPARATOR, ""))


def _best_statistics(candidates: list[Words], references: list[list[Words]]) -> np.ndarray:
    """The counts of each image's best reference: int64 [N, 21]."""
    images = len(candidates)
    per_image = np.fromiter(map(len, references), np.int64, images)
    lexicon = Lexicon([*candidates, *(words for captions in references for words in captions)])
    first = np.cumsum(per_image) - per_image
    image = np.repeat(np.arange(images), per_image)
    reference = images + np.arange(len(image))
    statistics = np.concatenate(
        [
            _align(lexicon, image[start : start + _PAIRS], reference[start : start + _PAIRS])
            for start in range(0, len(image), _PAIRS)
        ]
    )
    scores = scoring.score(statistics)
    is_best = np.flatnonzero(scores == np.maximum.reduceat(scores, first)[image])
    _, best = np.unique(image[is_best], return_index=True)
    return statistics[is_best[best]]


def _align(lexicon: Lexicon, candidate: np.ndarray, reference: np.ndarray) -> np.ndarray:
    matches = matching.find_matches(lexicon, candidate, reference)
    lengths = lexicon.lengths[reference], lexicon.lengths[candidate]
    taken = alignment.certain_matches(matches, *lengths)
    steps, left = alignment.prepare(matches, taken, *lengths)
    taken[np.flatnonzero(~taken)[beam.search(steps, left)]] = True
    return scoring.statistics(lexicon, candidate, reference, matches.take(np.flatnonzero(taken)))

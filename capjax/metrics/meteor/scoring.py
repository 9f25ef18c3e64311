"""From an alignment to METEOR's score: weighted precision and recall, and a penalty for chunks.

Denkowski and Lavie, "Meteor Universal: Language Specific Translation Evaluation for Any Target
Language", WMT 2014. Parameters are those tuned for English to rank systems, which is what
coco-caption's call of METEOR gets.

Legend: N images, P pairs of captions. A row of statistics is (candidate's words, reference's words,
function words among each; for each of the four modules: matched content words of the candidate and
of the reference, matched function words of the candidate and of the reference; chunks): 21 numbers.
A caption that matches its reference word by word in one chunk counts no chunk at all.
"""

from __future__ import annotations

import numpy as np

from capjax.metrics.meteor.lexicon import Lexicon
from capjax.metrics.meteor.matching import Matches
from capjax.metrics.meteor.ragged import expand

ALPHA = 0.85  # the weight of recall against precision
BETA = 0.2  # the power of fragmentation
GAMMA = 0.6  # the most that fragmentation can take away
DELTA = 0.75  # the weight of content words against function words
MODULE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase
_MODULES = len(MODULE_WEIGHTS)
STATISTICS = 5 + 4 * _MODULES


def statistics(
    lexicon: Lexicon, candidate: np.ndarray, reference: np.ndarray, aligned: Matches
) -> np.ndarray:
    """The counts of each pair's alignment; captions by their numbers [P]: int64 [P, 21]."""
    pairs = len(candidate)
    function = lexicon.function[lexicon.words]
    before = np.concatenate([[0], np.cumsum(function)])
    in_caption = before[lexicon.first_word[1:]] - before[lexicon.first_word[:-1]]
    columns = [lexicon.lengths[candidate], lexicon.lengths[reference]]
    columns += [in_caption[candidate], in_caption[reference]]

    matched = []  # [P, modules, content or function] for each side
    for caption, start, length in (
        (candidate, aligned.candidate_start, aligned.candidate_length),
        (reference, aligned.reference_start, aligned.reference_length),
    ):
        match, word = expand(lexicon.first_word[caption[aligned.pair]] + start, length)
        kind = aligned.module[match] * 2 + function[word]
        count = np.bincount(
            aligned.pair[match] * 2 * _MODULES + kind, minlength=pairs * 2 * _MODULES
        )
        matched.append(count.reshape(pairs, _MODULES, 2))
    columns += list(np.stack(matched, axis=-1).reshape(pairs, 4 * _MODULES).T)

    chunks = _chunks(aligned, pairs)
    whole = [count.sum(axis=(1, 2)) for count in matched]
    perfect = (whole[0] == columns[0]) & (whole[1] == columns[1]) & (chunks == 1)
    return np.stack([*columns, np.where(perfect, 0, chunks)], axis=1)


def _chunks(aligned: Matches, pairs: int) -> np.ndarray:
    """Runs of matches that follow one another in both captions: [P]."""
    follows = np.zeros(len(aligned.pair), bool)
    pair, at, there = aligned.pair, aligned.reference_start, aligned.candidate_start
    follows[1:] = (
        (pair[1:] == pair[:-1])
        & (at[1:] == (at + aligned.reference_length)[:-1])
        & (there[1:] == (there + aligned.candidate_length)[:-1])
    )
    return np.bincount(pair[~follows], minlength=pairs)


def score(statistics: np.ndarray) -> np.ndarray:
    """METEOR of each row of statistics, or of their sum for a corpus: [..., 21] -> [...]."""
    counts = np.moveaxis(np.asarray(statistics, np.float64), -1, 0)
    lengths, function_words, matched = counts[0:2], counts[2:4], counts[4:-1]
    weighted_lengths = DELTA * (lengths - function_words) + (1.0 - DELTA) * function_words
    # Summed up in the order of the original, so that equal scores are equal to the last bit.
    weighted = np.zeros_like(lengths)
    for is_function, share in enumerate((DELTA, 1.0 - DELTA)):
        for module, weight in enumerate(MODULE_WEIGHTS):
            column = 4 * module + 2 * is_function
            weighted = weighted + matched[column : column + 2] * weight * share
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = weighted / weighted_lengths
        mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
        fragmentation = counts[-1] / (matched.sum(axis=0) / 2)
        value = mean * (1.0 - GAMMA * fragmentation**BETA)
    return np.where(np.isnan(value), 0.0, np.maximum(value, 0.0))  # nothing matched, or no words

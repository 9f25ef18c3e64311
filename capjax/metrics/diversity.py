"""How varied captions are: distinct n-grams, vocabulary, repeated and novel captions, lengths.

Papers use the same words for different quotients; these are the ones here:
  distinct_n       distinct n-grams / n-grams, over all captions together (Li et al., "A Diversity-
                   Promoting Objective Function", NAACL 2016, divide by words; arXiv 2306.11593, on
                   fusing ranked captions, by n-grams as here and calls it n-gram diversity).
  div_n            distinct n-grams / words of the captions of one image, mean over images (Shetty
                   et al., "Speaking the Same Language", ICCV 2017): for several captions an image.
  vocabulary       distinct words of all captions.
  unique_captions  distinct captions / captions.
  novelty          captions that are not, word for word, in the training set / captions.
`self_bleu` has the similarity of an image's captions to each other.

distinct_n, vocabulary and unique_captions depend on how many captions there are: compare only equal
numbers. Their measures say `distinct`: intervals are made by the jackknife.

Legend: N images with one or more captions each, R captions of all images, G distinct n-grams.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.lengths import character_counts, word_counts
from capjax.metrics.measure import Measure, mean_of, of_sums
from capjax.metrics.ngrams import MAX_ORDER
from capjax.metrics.references import References, Tokens


def diversity(
    tokens: Sequence[Sequence[Tokens]], training: Iterable[Tokens] | None = None
) -> dict[str, Measure]:
    """All of the above over N images, n in 1 and 2; `novelty` only with `training`.

    Args:
      tokens: for each image the tokens of each of its captions, tokenised by one tokenizer.
      training: the tokens of the training captions, by the same tokenizer.

    Raises:
      UserError: no images, an image without captions, or an empty training set.
    """
    sets = caption_sets(tokens)
    measures = {
        "distinct_1": distinct(sets, 1),
        "distinct_2": distinct(sets, 2),
        "div_1": div(sets, 1),
        "div_2": div(sets, 2),
        "vocabulary": vocabulary(sets),
        "unique_captions": unique_captions(sets),
    }
    if training is not None:
        measures["novelty"] = novelty(sets, training)
    return measures


def caption_sets(tokens: Sequence[Sequence[Tokens]]) -> References:
    """The captions of N images with their n-grams counted by image, as those of references are.

    Raises:
      UserError: no images, or an image without captions.
    """
    if not len(tokens):
        raise UserError("there are no captions to compare: give at least one image with one")
    for image, captions in enumerate(tokens):
        if not len(captions):
            raise UserError(f"image number {image} has no caption: give one or drop the image")
    return References(range(len(tokens)), tokens)


def distinct(sets: References, n: int) -> Measure:
    """Distinct n-grams / n-grams; NaN where captions are too short to hold one."""
    image, gram, size = _ngrams_of_images(sets, n)
    words = np.maximum(0, sets.ngrams.lengths - n + 1)
    return _distinct_share(image, gram, size, np.bincount(sets.image, words))


def div(sets: References, n: int) -> Measure:
    """Distinct n-grams / words of an image's captions, 0 without words; the mean over images."""
    image, _, _ = _ngrams_of_images(sets, n)
    own = np.bincount(image, minlength=len(sets)).astype(np.float64)
    words = np.bincount(sets.image, sets.ngrams.lengths)
    return mean_of(np.divide(own, words, out=np.zeros_like(own), where=words > 0))


def vocabulary(sets: References) -> Measure:
    """Distinct words."""
    image, gram, size = _ngrams_of_images(sets, 1)
    own = np.bincount(image, minlength=len(sets)).astype(np.float64)
    return Measure(own, lambda weights: float(_distinct(weights, image, gram, size)), distinct=True)


def unique_captions(sets: References) -> Measure:
    """Distinct captions / captions."""
    number: dict[tuple[str, ...], int] = {}
    caption = np.array(
        [number.setdefault(tuple(c), len(number)) for captions in sets.tokens for c in captions]
    )
    # Each caption once an image, so that the value of an image is its own share.
    image, caption = np.unique(np.stack([sets.image, caption]), axis=1)
    return _distinct_share(image, caption, len(number), sets.captions_per_image)


def novelty(sets: References, training: Iterable[Tokens]) -> Measure:
    """Captions that are none of the training captions / captions.

    Raises:
      UserError: an empty training set.
    """
    known = {tuple(caption) for caption in training}
    if not known:
        raise UserError("there are no training captions: without them every caption is novel")
    novel = [sum(tuple(caption) not in known for caption in captions) for captions in sets.tokens]
    return of_sums(np.stack([novel, sets.captions_per_image], axis=1), _quotient)


def length_measures(captions: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """`lengths` of the captions of N images: `words`, `words_sd`, `characters`, `characters_sd`.

    The captions as they were written, not tokenised. An image with several counts that often.

    Raises:
      UserError: no images, or an image without captions.
    """
    if not captions or not all(len(own) for own in captions):
        raise UserError("an image without captions has no lengths: give at least one an image")
    image = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    texts = [text for own in captions for text in own]
    measures = {}
    for name, count in (("words", word_counts(texts)), ("characters", character_counts(texts))):
        moments = [np.bincount(image, count**power) for power in (0, 1, 2)]
        sums = np.stack(moments, axis=1)
        measures[name] = of_sums(sums, lambda sums: sums[..., 1] / sums[..., 0])
        measures[f"{name}_sd"] = of_sums(sums, _standard_deviation)
    return measures


def _ngrams_of_images(sets: References, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Distinct (image, n-gram) pairs [Q] as two arrays, and the number G of n-grams."""
    if not 1 <= n <= MAX_ORDER:
        raise UserError(f"n-grams of {n} words are not counted: n is 1 to {MAX_ORDER}")
    size = max(len(sets.ngrams.orders[n - 1].keys), 1)
    image, gram = np.divmod(sets.postings[n - 1].keys, size)
    return image, gram, size


def _distinct(weights: np.ndarray, image: np.ndarray, thing: np.ndarray, size: int) -> int:
    """How many of `size` things stand in images that are drawn at all."""
    seen = np.zeros(size, bool)
    seen[thing[weights[image] > 0]] = True
    return np.count_nonzero(seen)


def _distinct_share(image: np.ndarray, thing: np.ndarray, size: int, total: np.ndarray) -> Measure:
    """Distinct things / things, of which image i has total[i], NaN without any."""
    own = np.bincount(image, minlength=len(total))
    return Measure(
        _quotient(np.stack([own, total], axis=1)),
        lambda weights: float(
            _quotient(np.array([_distinct(weights, image, thing, size), weights @ total]))
        ),
        distinct=True,
    )


def _quotient(sums: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(sums[..., 0], np.float64), np.asarray(sums[..., 1], np.float64)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _standard_deviation(sums: np.ndarray) -> np.ndarray:
    """Of (number, sum, sum of squares) [..., 3]; rounding may leave a tiny negative variance."""
    mean = sums[..., 1] / sums[..., 0]
    return np.sqrt(np.maximum(sums[..., 2] / sums[..., 0] - mean**2, 0.0))

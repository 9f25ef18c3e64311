"""Reference captions, tokenised and counted once, against which any number of candidate sets go.

Legend: N images, R reference captions of all images together, G and P as in `ngrams`.

    references = References.from_captions({"image 1": ["a dog .", "the dog"], ...})
    for scale in (1.0, 1.5, 2.0):
        print(evaluate(captions_at[scale], references).metrics)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from capjax.errors import UserError
from capjax.metrics import ptb
from capjax.metrics.document_frequency import DocumentFrequencies
from capjax.metrics.ngrams import NGrams, Order, count_ngrams, find, match_ngrams

Tokens = list[str]
T = TypeVar("T")


class Postings(NamedTuple):
    """The reference n-grams of one order by image: which of its captions hold them, how often.

    A run is one (image, n-gram) pair; Q runs. Its captions are entries start[q] up to stop[q].
    """

    keys: np.ndarray  # int64 [Q], sorted: image * G + n-gram
    start: np.ndarray  # int64 [Q]
    stop: np.ndarray  # int64 [Q]
    caption: np.ndarray  # int32 [P]
    count: np.ndarray  # int32 [P]
    max_count: np.ndarray  # int32 [Q]: the largest count in one caption of the image
    document_frequency: np.ndarray  # int64 [G]: images with the n-gram in any reference


class References:
    """The reference captions of N images.

    Attributes:
      ids: the N images, in the order given.
      tokens: for each image, the tokens of each of its captions.
      image: int64 [R], the image each caption belongs to; captions are in the order of images.
      first: int64 [N], the first caption of each image.
      captions_per_image: int64 [N].
      corpus: where CIDEr's document frequencies come from; None: from these captions.
    """

    def __init__(
        self,
        ids: Sequence[Hashable],
        tokens: Sequence[Sequence[Tokens]],
        tokenizer: Callable[[str], Tokens] = ptb.tokenize,
        corpus: DocumentFrequencies | None = None,
    ):
        """`tokens` are already tokenised; `tokenizer` is for the candidates to come."""
        self.ids = tuple(ids)
        self.tokens = tokens
        self.tokenizer = tokenizer
        self.corpus = corpus
        self._prepared: dict[Callable, object] = {}
        self.captions_per_image = np.fromiter(map(len, tokens), np.int64, len(tokens))
        self.first = np.cumsum(self.captions_per_image) - self.captions_per_image
        self.image = np.repeat(np.arange(len(tokens)), self.captions_per_image)

    @classmethod
    def from_captions(
        cls,
        captions: Mapping[Hashable, Sequence[str]],
        tokenizer: Callable[[str], Tokens] = ptb.tokenize,
        corpus: DocumentFrequencies | None = None,
    ) -> References:
        """Tokenises {image id: its reference captions}.

        `corpus`: the document frequencies of CIDEr, by default those of these captions.

        Raises:
          UserError: no images, an image without captions, or a caption that is not a string.
        """
        if not captions:
            raise UserError("there are no reference captions: give at least one image with one")
        tokens = []
        for image_id, texts in captions.items():
            if isinstance(texts, str) or not isinstance(texts, Sequence):
                raise UserError(
                    f"the references of image {image_id!r} are a {type(texts).__name__}:"
                    " give a list of captions"
                )
            if not texts:
                raise UserError(
                    f"image {image_id!r} has no reference caption: give one or drop the image"
                )
            for text in texts:
                require_caption(text, image_id, "a reference")
            tokens.append([tokenizer(text) for text in texts])
        return cls(tuple(captions), tokens, tokenizer, corpus)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def ngrams(self) -> NGrams:
        known = self.corpus.vocabulary if self.corpus else None
        return count_ngrams([caption for captions in self.tokens for caption in captions], known)

    @functools.cached_property
    def document_frequencies(self) -> DocumentFrequencies:
        """What CIDEr weighs n-grams with."""
        return self.corpus or DocumentFrequencies.of(self)

    @functools.cached_property
    def postings(self) -> list[Postings]:
        """One a length of n-gram."""
        return [_postings(order, self.image) for order in self.ngrams.orders]

    @functools.cached_property
    def inverse_document_frequency(self) -> list[np.ndarray]:
        """For each order, the weight of each n-gram: [G]."""
        return self.document_frequencies.inverse(self.ngrams)

    @functools.cached_property
    def norms(self) -> list[np.ndarray]:
        """For each order, the length of each caption's vector of count times idf: [R]."""
        return [
            weight_norms(order, idf[order.gram], len(self.image))
            for order, idf in zip(self.ngrams.orders, self.inverse_document_frequency, strict=True)
        ]

    def once(self, make: Callable[[References], T]) -> T:
        """make(self), made on the first call only: what a metric prepares from its references.

        Equal makers are one: give a function of a module, or an object that compares by value.
        """
        if make not in self._prepared:
            self._prepared[make] = make(self)
        return self._prepared[make]

    def align(self, candidates: Mapping[Hashable, str | Sequence[str]]) -> Candidates:
        """Tokenises one candidate an image, in the order of the references.

        Raises:
          UserError: ids without a counterpart, or a candidate that is not one string.
        """
        _require_same_ids(candidates, self.ids)
        tokens = [
            self.tokenizer(_only_caption(candidates[image_id], image_id)) for image_id in self.ids
        ]
        return Candidates(self, tokens)

    def align_several(self, candidates: Mapping[Hashable, str | Sequence[str]]) -> list[Candidates]:
        """Tokenises K candidates an image: the first ones of all images, the second ones, ...

        Raises:
          UserError: as `align`; an image whose candidates are no list of captions, or not as many
            as those of the others.
        """
        _require_same_ids(candidates, self.ids)
        count, first = None, None
        for image_id in self.ids:
            captions = candidates[image_id]
            if isinstance(captions, str) or not isinstance(captions, Sequence):
                raise UserError(
                    f"the candidates of image {image_id!r} are a {type(captions).__name__}: give a"
                    " list of captions for each image"
                )
            if not captions:
                raise UserError(f"image {image_id!r} has no candidates: give at least one caption")
            if count is None:
                count, first = len(captions), image_id
            if len(captions) != count:
                raise UserError(
                    f"image {image_id!r} has {len(captions)} candidates but image {first!r} has"
                    f" {count}: give every image equally many"
                )
        return [self.align({i: candidates[i][k] for i in self.ids}) for k in range(count)]


class Candidates:
    """One candidate caption for each image of `references`, with their n-grams matched."""

    def __init__(self, references: References, tokens: list[Tokens]):
        self.references = references
        self.tokens = tokens

    @functools.cached_property
    def ngrams(self) -> NGrams:
        return count_ngrams(self.tokens, self.references.ngrams.vocabulary)

    @functools.cached_property
    def reference_gram(self) -> list[np.ndarray]:
        """For each order, the references' number of each (candidate, n-gram) pair or -1: [P]."""
        known = self.references.ngrams
        matches = match_ngrams(
            self.ngrams, known.vocabulary, [order.keys for order in known.orders]
        )
        return [match[order.gram] for match, order in zip(matches, self.ngrams.orders, strict=True)]

    @functools.cached_property
    def run(self) -> list[np.ndarray]:
        """For each order, the run of `postings` with the same image and n-gram, or -1: [P]."""
        runs = []
        for order, gram, known, postings in zip(
            self.ngrams.orders,
            self.reference_gram,
            self.references.ngrams.orders,
            self.references.postings,
            strict=True,
        ):
            key = order.sentence * np.int64(len(known.keys)) + gram
            runs.append(np.where(gram >= 0, find(postings.keys, key), -1))
        return runs


def require_caption(text: object, image_id: Hashable, what: str) -> str:
    if not isinstance(text, str):
        raise UserError(
            f"{what} of image {image_id!r} is a {type(text).__name__}: captions must be strings"
        )
    return text


def weight_norms(order: Order, idf: np.ndarray, sentences: int) -> np.ndarray:
    """Euclidean length of each sentence's vector of count times `idf` [P]: [sentences]."""
    return np.sqrt(np.bincount(order.sentence, (order.count * idf) ** 2, sentences))


def _postings(order: Order, image: np.ndarray) -> Postings:
    grams = max(len(order.keys), 1)
    key = image[order.sentence] * np.int64(grams) + order.gram
    by_image = np.argsort(key, kind="stable")
    key = key[by_image]
    count = order.count[by_image]
    start = np.flatnonzero(np.diff(key, prepend=-1))
    return Postings(
        keys=key[start],
        start=start,
        stop=np.append(start[1:], len(key))[: len(start)],
        caption=order.sentence[by_image],
        count=count,
        max_count=np.maximum.reduceat(count, start) if len(start) else count,
        document_frequency=np.bincount(key[start] % grams, minlength=len(order.keys)),
    )


def _require_same_ids(candidates: Mapping[Hashable, object], ids: Sequence[Hashable]) -> None:
    known = set(ids)
    unknown = [image_id for image_id in candidates if image_id not in known]
    missing = [image_id for image_id in ids if image_id not in candidates]
    complaints = []
    if unknown:
        complaints.append(f"{len(unknown)} candidates have no references ({listed(unknown)})")
    if missing:
        complaints.append(f"{len(missing)} references have no candidate ({listed(missing)})")
    if complaints:
        raise UserError(f"{' and '.join(complaints)}: both need the same image ids")


def listed(ids: Sequence[Hashable]) -> str:
    """The first three ids, for messages."""
    return ", ".join(repr(image_id) for image_id in ids[:3]) + (", ..." if len(ids) > 3 else "")


def _only_caption(candidate: object, image_id: Hashable) -> str:
    if isinstance(candidate, (list, tuple)):
        if len(candidate) != 1:
            raise UserError(f"image {image_id!r} has {len(candidate)} candidates: give exactly one")
        candidate = candidate[0]
    return require_caption(candidate, image_id, "the candidate")

"""In how many images of a corpus each n-gram occurs: what CIDEr weighs n-grams with.

By default these are the images whose captions are being scored against (coco-caption's "corpus").
Few images make poor weights, and rewards for a batch of training pictures need those of the whole
training set: count a corpus once, keep it in a file, and hand it to the references.

    corpus = DocumentFrequencies.of(References.from_captions(training_captions))
    corpus.save("train.npz")
    references = References.from_captions(captions, corpus=DocumentFrequencies.load("train.npz"))

Legend: G distinct n-grams of one order.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capjax.errors import UserError
from capjax.metrics.ngrams import MAX_ORDER, NGrams, match_ngrams
from capjax.whole_file import whole_file

if TYPE_CHECKING:
    from capjax.metrics.references import References

_FORMAT = "capjax document frequencies 1"


@dataclass(frozen=True)
class DocumentFrequencies:
    """The images of a corpus and their n-grams.

    Attributes:
      images: how many images the corpus has.
      vocabulary: the number of each word.
      keys: for each order, the n-grams as `ngrams` numbers them: int64 [G], sorted.
      counts: for each order, the images whose captions hold the n-gram: int64 [G].
    """

    images: int
    vocabulary: dict[str, int]
    keys: list[np.ndarray]
    counts: list[np.ndarray]

    @classmethod
    def of(cls, references: References) -> DocumentFrequencies:
        """Counts the images of `references`."""
        return cls(
            images=len(references),
            vocabulary=references.ngrams.vocabulary,
            keys=[order.keys for order in references.ngrams.orders],
            counts=[postings.document_frequency for postings in references.postings],
        )

    def inverse(self, ngrams: NGrams) -> list[np.ndarray]:
        """For each order, log(images / images that hold the n-gram), for each n-gram there: [G].

        An n-gram that the corpus lacks counts as if one image held it, as in the published code.
        `ngrams` must have been counted with this vocabulary.
        """
        inverse = []
        for row, counts in zip(
            match_ngrams(ngrams, self.vocabulary, self.keys), self.counts, strict=True
        ):
            held = np.ones(len(row))
            held[row >= 0] = np.maximum(1, counts[row[row >= 0]])
            inverse.append(np.log(float(self.images)) - np.log(held))
        return inverse

    def save(self, path: str | Path) -> None:
        """Writes one .npz file, whole or not at all."""
        words = "\n".join(self.vocabulary).encode("utf-8", "surrogatepass")
        arrays = {f"keys_{n + 1}": keys for n, keys in enumerate(self.keys)}
        arrays |= {f"counts_{n + 1}": counts for n, counts in enumerate(self.counts)}
        with whole_file(path, "wb") as file:
            np.savez_compressed(
                file,
                format=np.array(_FORMAT),
                images=np.array(self.images),
                words=np.frombuffer(words, np.uint8),
                **arrays,
            )

    @classmethod
    def load(cls, path: str | Path) -> DocumentFrequencies:
        """Reads what `save` wrote.

        Raises:
          UserError: no such file, or one that `save` did not write or that is truncated.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                if str(stored["format"]) != _FORMAT:
                    raise ValueError("another format")
                text = stored["words"].tobytes().decode("utf-8", "surrogatepass")
                words = text.split("\n") if text else []
                return cls(
                    images=int(stored["images"]),
                    vocabulary={word: i for i, word in enumerate(words)},
                    keys=[stored[f"keys_{n + 1}"] for n in range(MAX_ORDER)],
                    counts=[stored[f"counts_{n + 1}"] for n in range(MAX_ORDER)],
                )
        except FileNotFoundError as error:
            raise UserError(f"there is no file of document frequencies {path}") from error
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} holds no document frequencies: write it with DocumentFrequencies.save"
            ) from error

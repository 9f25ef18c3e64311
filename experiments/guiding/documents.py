"""Text to train a few-shot language model on: documents of many captions of one corpus, one a line.

    config.data.train = {
        "name": "experiments.guiding.documents",
        "paths": ("flickr30k.jsonl", "coco.jsonl"),
        "words": 560,
    }

A document draws its corpus (in proportion to their sizes), then different records of it, one
caption each, so that the lines before tell the style of the next one and nothing about its picture.
Half of the documents begin with empty lines, with which prompts of unequal lengths are filled up
(`few_shot`). A document is drawn from (seed, index) alone.

Raises `UserError` for a corpus that is missing, empty or damaged.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capjax.errors import UserError

BREAK = "\n"


class Source:
    """`size` documents of about `words` words without pictures.

    paths: corpora, see `read_corpus`. blank_lines: at most so many before the first caption.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike],
        words: int = 100,
        size: int = 100_000,
        blank_lines: int = 0,
        seed: int = 0,
    ):
        if not paths:
            raise UserError("documents: there are no corpora; give at least one in `paths`")
        if words < 1 or size < 1:
            raise UserError(f"documents: words={words} and size={size} must be at least 1")
        self._corpora = [read_corpus(path) for path in paths]
        counts = np.array([len(corpus) for corpus in self._corpora], float)
        self._chances = counts / counts.sum()
        self.words, self.size, self.blank_lines, self.seed = words, size, blank_lines, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"key": str(index), "captions": self.captions(index)}

    def captions(self, index: int) -> list[str]:
        """The one document."""
        if not 0 <= index < self.size:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        corpus = self._corpora[rng.choice(len(self._corpora), p=self._chances)]
        blank = int(rng.integers(self.blank_lines + 1)) if rng.random() < 0.5 else 0
        lines, count = [""] * blank, blank
        for record in rng.permutation(len(corpus)):
            line = corpus[record][rng.integers(len(corpus[record]))]
            count += len(line.split()) + 1
            if count > self.words and len(lines) > blank:
                break
            lines.append(line)
        return [BREAK.join([*lines, ""])]


def read_corpus(path: str | os.PathLike) -> list[list[str]]:
    """The captions of each record of a corpus: lines {"captions": [str]} of JSONL, maybe .gz."""
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    corpus = []
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                corpus.append(_captions(line, f"{path}:{number}"))
    except OSError as error:
        raise UserError(
            f"cannot read the corpus {str(path)!r}: {error.strerror or error}"
        ) from None
    corpus = [captions for captions in corpus if captions]
    if not corpus:
        raise UserError(f"the corpus {str(path)!r} holds no captions")
    return corpus


def _captions(line: str, where: str) -> list[str]:
    try:
        captions = json.loads(line)["captions"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{where} is no record {{"captions": [...]}} ({error!r})') from None
    # A line of a document is one caption: what breaks lines within it becomes a blank.
    return [text for text in (" ".join(str(caption).split()) for caption in captions) if text]

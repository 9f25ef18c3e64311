"""What captions of scenes are worth: to references, to an encoder, to an oracle, as sentences.

    cider              against the record's captions, 0 to 10
    clip_s             2.5 max(cosine, 0) in the encoder's space
    recall_at_1        does the encoder find the picture by its caption among all of them
    oracle_recall_at_1 the chance to pick it, knowing only what the caption says, which a parser of
                       the scenes' grammar reads; 0 for what does not parse
    repeated_bigrams   share of a caption's pairs of words that stood in it before
    grammatical        is it a sentence of the grammar
    attribute          does it name any attribute
    words

Letters: N pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capjax.data.loader import stack_images
from capjax.data.scenes.parse import mentions_attribute, parse, posterior
from capjax.decode.captioner import Captioner
from capjax.evals.encoder import Encoder
from capjax.metrics import References, evaluate
from capjax.metrics.clipscore import clip_score
from capjax.metrics.distractors import bag_recall, random_bags
from capjax.metrics.retrieval import ranks
from capjax.runs import Run

BATCH = 100  # pictures that are captioned at a time


class Pictures:
    """N records of scenes as an encoder sees them; `measure` gives what captions of them score."""

    def __init__(self, records: Sequence[Mapping[str, Any]], judge: Run):
        self.records = list(records)
        self._encoder = Encoder(judge.model, judge.params, judge.tokenizer)
        side = judge.model.image_size
        self.embedded = self._encoder.images(
            stack_images(self.records, len(self.records), side, "squash")
        )
        self._graphs = [record["graph"] for record in self.records]
        self._keys = [record["key"] for record in self.records]
        told = {record["key"]: list(record["captions"]) for record in self.records}
        self._references = References.from_captions(told)

    def captions(self, run: Run, scale: float = 1.0) -> list[str]:
        """Greedy captions of all pictures, guided by `scale`."""
        captioner, found = Captioner(run.model, run.params, run.tokenizer), []
        for start in range(0, len(self.records), BATCH):
            part = self.records[start : start + BATCH]
            images = stack_images(part, BATCH, run.model.image_size, "squash")
            written = captioner.write(captioner.encode(images).context, scale)
            found += [caption.text for caption in written[: len(part)]]
        return found

    def measure(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """{name: [N]}, see the module's docstring."""
        texts = self._encoder.texts(list(captions))
        candidates = dict(zip(self._keys, captions, strict=True))
        cider = evaluate(candidates, self._references, metrics=("cider",)).measures["cider"]
        place = np.arange(len(captions))
        empty = np.array([not caption.strip() for caption in captions])
        chances = [posterior(caption, self._graphs)[i] for i, caption in enumerate(captions)]
        return {
            "cider": np.asarray(cider.per_image),
            "clip_s": np.where(empty, 0, clip_score(self.embedded, texts)),
            "recall_at_1": (ranks(texts, self.embedded, place) == 1).astype(float),
            "oracle_recall_at_1": np.array(chances),
            "repeated_bigrams": np.array([repeated_bigrams(caption) for caption in captions]),
            "grammatical": np.array([float(parse(caption) is not None) for caption in captions]),
            "attribute": np.array([float(mentions_attribute(caption)) for caption in captions]),
            "words": np.array([float(len(caption.split())) for caption in captions]),
        }

    def found_among(self, captions: Sequence[str], size: int, draws: int = 10) -> np.ndarray:
        """[N]: how often the encoder finds each picture by its caption in sets of `size`."""
        bags = random_bags(len(self.records), size, draws=draws)
        texts = self._encoder.texts(list(captions))
        return np.asarray(bag_recall(texts, self.embedded, bags).per_image)


def means(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Over pictures."""
    return {name: float(np.mean(values)) for name, values in measured.items()}


def repeated_bigrams(caption: str) -> float:
    """Of "red red red red red" 3/4; 0 of captions of fewer than three words."""
    words = caption.split()
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0

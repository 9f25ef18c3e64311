"""Queries made of a picture and words: "this picture, but red", "this one without the dog".

Jia et al., ALIGN (arXiv 2102.05918, section 5.3): the query is picture + 2 * text, of unit vectors,
and a text is subtracted to take something away; the picture nearest to the query is the answer.

Letters: N pictures of the gallery, Q queries, E embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from capjax.config import instantiate
from capjax.data.loader import record_batches, stack_images
from capjax.data.skips import SkipBudget
from capjax.errors import BadRecord, UserError
from capjax.evals.encoder import Encoder
from capjax.metrics.clipscore import normalised
from capjax.metrics.measure import Measure, mean_of
from capjax.metrics.retrieval import ranks

TEXT_WEIGHT = 2.0
RECALLS = (1, 5, 10)


def compose(
    image_emb: np.ndarray, added: np.ndarray, removed: np.ndarray, text_weight: float = TEXT_WEIGHT
) -> np.ndarray:
    """Unit query vectors: picture + weight * (added - removed); all [Q, E].

    A row of zeros in `added` or `removed` is no text; what is not zero is normalised first.

    Raises:
      UserError: shapes that differ, an embedding that is zero, or a query that cancels out.
    """
    if not image_emb.shape == added.shape == removed.shape:
        raise UserError(
            f"pictures {image_emb.shape}, added {added.shape} and removed {removed.shape} texts"
            " must have one embedding of one size a query"
        )
    texts = np.zeros(image_emb.shape)
    for sign, text in ((1.0, added), (-1.0, removed)):
        given = np.any(text != 0, axis=1)
        texts[given] += sign * normalised(text[given], "text")
    return normalised(normalised(image_emb, "picture") + text_weight * texts, "query")


class Evaluator:
    """`run(params)`: arithmetic_recall_at_k, and image_only_recall_at_k of the picture alone.

    data: a source section. Its pictures are the gallery; those whose records have a field `queries`
    ask: a list of {"add": words, "remove": words (one of both may be absent), "target": the key of
    the picture that is right, or a list of keys}. The asking picture itself is no answer.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer,
        data: Mapping[str, Any],
        text_weight: float = TEXT_WEIGHT,
        batch_size: int = 64,
        resize: str = "squash",
        max_bad_fraction: float = 0.0,
    ):
        self.model, self.tokenizer, self.text_weight = model, tokenizer, text_weight
        self.batch_size, self.resize = batch_size, resize
        self.max_bad_fraction = max_bad_fraction
        self.source = instantiate(data, "Source", where="the evaluator's data")

    def run(self, params) -> dict[str, float]:
        """Recalls as shares in [0, 1]."""
        return {name: measure.value for name, measure in self.measures(params).items()}

    def measures(self, params) -> dict[str, Measure]:
        """The same with their values per query."""
        encoder = Encoder(self.model, params, self.tokenizer, self.batch_size)
        skips = SkipBudget(len(self.source), self.max_bad_fraction)
        keys: list[str] = []
        asked: list[tuple[int, Mapping[str, Any]]] = []
        rows = []
        for records in record_batches(self.source, self.batch_size, skips):
            for record in records:
                asked += [(len(keys), _checked(query, record["key"])) for query in _queries(record)]
                keys.append(record["key"])
            images = stack_images(records, len(records), self.model.image_size, self.resize)
            rows.append(encoder.images(images))
        if not asked:
            raise UserError("no record of the evaluation data has queries: give it some")
        gallery = np.concatenate(rows)
        own = np.array([row for row, _ in asked])
        texts = [
            _texts(encoder, [query.get(field, "") for _, query in asked], gallery.shape[1])
            for field in ("add", "remove")
        ]
        place = {key: row for row, key in enumerate(keys)}
        targets = [_targets(query, keys[row], place) for row, query in asked]
        composed = compose(gallery[own], *texts, self.text_weight)
        found = {}
        for name, query in (("arithmetic", composed), ("image_only", gallery[own])):
            rank = ranks_without(query, gallery, targets, own)
            found |= {f"{name}_recall_at_{k}": mean_of(rank <= k) for k in RECALLS}
        return found


def ranks_without(
    query: np.ndarray, gallery: np.ndarray, targets: list[list[int]], own: np.ndarray
) -> np.ndarray:
    """Ranks from 1 of each query's best target, the gallery's row `own` [Q] left out: int64 [Q]."""
    rank = ranks(query, gallery, targets)
    # The asking picture is ahead of the target if it is at least as similar: as `ranks` counts.
    alone = [
        ranks(query[i : i + 1], gallery[[row, *targets[i]]], [range(1, 1 + len(targets[i]))])[0] - 1
        for i, row in enumerate(own)
    ]
    return rank - np.array(alone)


def _queries(record: Mapping[str, Any]) -> list:
    queries = record.get("queries", [])
    if not isinstance(queries, list):
        raise BadRecord(record["key"], "its 'queries' is no list")
    return queries


def _checked(query: Any, key: str) -> Mapping[str, Any]:
    if (
        not isinstance(query, Mapping)
        or "target" not in query
        or not set(query) & {"add", "remove"}
    ):
        raise BadRecord(key, "a query needs a 'target' and words to 'add' or to 'remove'")
    return query


def _targets(query: Mapping[str, Any], key: str, place: Mapping[str, int]) -> list[int]:
    named = query["target"] if isinstance(query["target"], list) else [query["target"]]
    for target in named:
        if target not in place or target == key:
            raise BadRecord(key, f"the target {target!r} of its query is no other picture there")
    return [place[target] for target in named]


def _texts(encoder: Encoder, texts: list[str], width: int) -> np.ndarray:
    """[Q, E], a row of zeros where there is no text."""
    embedded = np.zeros((len(texts), width))
    given = [i for i, text in enumerate(texts) if text]
    if given:
        embedded[given] = encoder.texts([texts[i] for i in given])
    return embedded

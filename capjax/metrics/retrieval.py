"""Retrieval between captions and images by cosine: ranks, recall at k, median and mean rank.

Ties are resolved against the model: a target ranks behind everything that is as similar to the
query as it is. So an encoder that gives every picture the same embedding has recall 0, not 1, and
one caption for all images earns nothing. Similarities closer than 1e-9 (computed in float64) count
as equal, because rounding depends on where in a matrix product a vector stands.

`retrieval_measures` gives both directions as measures, for a bootstrap over images: the queries of
an image are drawn together, the gallery stays whole. `distractors` has retrieval among few items.

Legend: Q queries, G gallery items, E embedding size, N images, C captions of all images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import normalised
from capjax.metrics.measure import Measure, of_sums

TIE = 1e-9
_BLOCK = 1 << 24  # similarities held at a time: 128 MiB


def ranks(
    query_emb: np.ndarray,
    gallery_emb: np.ndarray,
    targets: Sequence[int] | Sequence[Sequence[int]] | np.ndarray,
) -> np.ndarray:
    """The rank, from 1, of the best target of each query: int64 [Q].

    Args:
      query_emb: [Q, E], need not be normalised.
      gallery_emb: [G, E], likewise.
      targets: for each query the row of its target, or the rows of all of its targets. The other
        targets of a query are never ahead of its best one.

    Raises:
      UserError: shapes that do not match, a query without a target, or a row beyond the gallery.
    """
    query, gallery = normalised(query_emb, "query"), normalised(gallery_emb, "gallery")
    require_same_size(query, gallery)
    rows = target_rows(targets, len(query), len(gallery))
    result = np.empty(len(query), np.int64)
    block = max(1, _BLOCK // len(gallery))
    for begin in range(0, len(query), block):
        similarity = query[begin : begin + block] @ gallery.T
        for i, row in enumerate(similarity, start=begin):
            best = row[rows[i]].max()
            row[rows[i]] = -np.inf
            result[i] = 1 + np.count_nonzero(row >= best - TIE)
    return result


def recall_at_k(
    query_emb: np.ndarray,
    gallery_emb: np.ndarray,
    targets: Sequence[int] | Sequence[Sequence[int]] | np.ndarray,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[int, float]:
    """{k: fraction of queries with a target among the k nearest}; arguments as `ranks`."""
    return recall_from_ranks(ranks(query_emb, gallery_emb, targets), ks)


def recall_from_ranks(rank: np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """{k: fraction of ranks up to k}.

    Raises:
      UserError: a k below 1.
    """
    for k in ks:
        if k < 1:
            raise UserError(f"recall at {k} has no meaning: k must be at least 1")
    return {k: float(np.mean(rank <= k)) for k in ks}


def caption_image_ranks(
    image_emb: np.ndarray,
    image_ids: Sequence[Hashable],
    caption_emb: np.ndarray,
    caption_image_ids: Sequence[Hashable],
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of caption->image, [captions], and image->caption, [images], joined by image id.

    An image may have several captions; for image->caption its best one counts.

    Raises:
      UserError: an image id twice, fewer captions than images, an image without a caption, a
        caption of an unknown image, or as many ids as embeddings missing.
    """
    _require_count(image_emb, image_ids, "image")
    _require_count(caption_emb, caption_image_ids, "caption")
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    if len(place) != len(image_ids):
        twice = next(i for n, i in enumerate(image_ids) if place[i] != n)
        raise UserError(f"image id {twice!r} stands twice in the gallery: drop the duplicate")
    if len(caption_image_ids) < len(image_ids):
        raise UserError(
            f"{len(caption_image_ids)} captions for {len(image_ids)} images: every image of the"
            " gallery needs at least one"
        )
    unknown = [image_id for image_id in caption_image_ids if image_id not in place]
    if unknown:
        raise UserError(
            f"{len(unknown)} captions belong to images that are not in the gallery, the first to"
            f" {unknown[0]!r}: give the embeddings of those images"
        )
    image_of_caption = [place[image_id] for image_id in caption_image_ids]
    captions_of_image: list[list[int]] = [[] for _ in image_ids]
    for caption, image in enumerate(image_of_caption):
        captions_of_image[image].append(caption)
    for image_id, captions in zip(image_ids, captions_of_image, strict=True):
        if not captions:
            raise UserError(f"image {image_id!r} has no caption: give one or drop the image")
    return (
        ranks(caption_emb, image_emb, image_of_caption),
        ranks(image_emb, caption_emb, captions_of_image),
    )


def retrieval_measures(
    image_emb: np.ndarray,
    image_ids: Sequence[Hashable],
    caption_emb: np.ndarray,
    caption_image_ids: Sequence[Hashable],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, Measure]:
    """Both directions over N images: `image_to_text_recall_at_1`, `text_to_image_median_rank`, ...

    For each direction recalls as shares of queries, `median_rank` and `mean_rank`; and
    `recall_sum`, the sum of all recalls (the rSum of papers, which add percentages, is 100 times
    it). In text to image every caption is a query, so that an image with more captions weighs more;
    its value per image is that of its captions.

    Raises:
      UserError: as `caption_image_ranks`; a k below 1.
    """
    to_image, to_text = caption_image_ranks(image_emb, image_ids, caption_emb, caption_image_ids)
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    owner = np.array([place[image_id] for image_id in caption_image_ids], np.int64)
    measures: dict[str, Measure] = {}
    for direction, rank, image in (
        ("image_to_text", to_text, np.arange(len(image_ids))),
        ("text_to_image", to_image, owner),
    ):
        recall_from_ranks(rank, ks)  # refuses a k without meaning
        for k in ks:
            measures[f"{direction}_recall_at_{k}"] = mean_over_queries(rank <= k, image)
        measures[f"{direction}_median_rank"] = median_over_queries(rank, image)
        measures[f"{direction}_mean_rank"] = mean_over_queries(rank, image)
    recalls = [measure for name, measure in measures.items() if "recall_at" in name]
    measures["recall_sum"] = Measure(
        np.sum([recall.per_image for recall in recalls], axis=0),
        lambda weights: sum(recall.corpus(weights) for recall in recalls),
    )
    return measures


def mean_over_queries(values: np.ndarray, image: np.ndarray) -> Measure:
    """The mean of values [Q] of queries; image [Q] says whose they are, 0 to N-1, none left out."""
    total, queries = np.bincount(image, values), np.bincount(image)
    return of_sums(np.stack([total, queries], axis=1), lambda sums: sums[..., 0] / sums[..., 1])


def median_over_queries(values: np.ndarray, image: np.ndarray) -> Measure:
    """The median of values [Q], those of image i repeated weights[i] times.

    Of an even number of values it is the mean of the middle two, as `np.median`. `image` as in
    `mean_over_queries`.
    """
    values, image = np.asarray(values, np.float64), np.asarray(image)
    order = np.argsort(values, kind="stable")
    ascending, owner = values[order], image[order]
    by_image = np.argsort(image, kind="stable")
    groups = np.split(values[by_image], np.cumsum(np.bincount(image))[:-1])

    def corpus(weights: np.ndarray) -> float:
        upto = np.cumsum(weights[owner])  # how many of the repeated values stand up to each place
        middle = (upto[-1] - 1) // 2, upto[-1] // 2
        return float(np.mean(ascending[np.searchsorted(upto, middle, side="right")]))

    return Measure(np.array([np.median(group) for group in groups]), corpus)


def _require_count(embeddings: np.ndarray, ids: Sequence[Hashable], what: str) -> None:
    if len(embeddings) != len(ids):
        raise UserError(
            f"{len(embeddings)} {what} embeddings but {len(ids)} {what} ids: give one id each"
        )


def require_same_size(query: np.ndarray, gallery: np.ndarray) -> None:
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise UserError(
            f"query embeddings {query.shape} and gallery embeddings {gallery.shape} must be"
            " [number, size] with the same size: embed both with the same model"
        )


def target_rows(targets: Sequence, queries: int, gallery: int) -> list[np.ndarray]:
    """The rows of the targets of each query, checked."""
    if len(targets) != queries:
        raise UserError(f"{queries} queries but {len(targets)} targets: give one or more a query")
    rows = [np.atleast_1d(np.asarray(target, np.int64)) for target in targets]
    for query, row in enumerate(rows):
        if not row.size:
            raise UserError(f"query {query} has no target in the gallery: drop it")
        if row.min() < 0 or row.max() >= gallery:
            raise UserError(
                f"the target of query {query} is row {row.tolist()} of a gallery of {gallery}:"
                " rows count from 0"
            )
    return rows

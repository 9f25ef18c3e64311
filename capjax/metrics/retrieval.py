"""Retrieval between captions and images by cosine: ranks, recall at k, median rank.

Ties are resolved against the model: a target ranks behind everything that is as similar to the
query as it is. So an encoder that gives every picture the same embedding has recall 0, not 1, and
one caption for all images earns nothing. Similarities closer than 1e-9 (computed in float64) count
as equal, because rounding depends on where in a matrix product a vector stands.

Legend: Q queries, G gallery items, E embedding size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import normalised

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
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise UserError(
            f"query embeddings {query.shape} and gallery embeddings {gallery.shape} must be"
            " [number, size] with the same size: embed both with the same model"
        )
    rows = _target_rows(targets, len(query), len(gallery))
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


def _require_count(embeddings: np.ndarray, ids: Sequence[Hashable], what: str) -> None:
    if len(embeddings) != len(ids):
        raise UserError(
            f"{len(embeddings)} {what} embeddings but {len(ids)} {what} ids: give one id each"
        )


def _target_rows(targets: Sequence, queries: int, gallery: int) -> list[np.ndarray]:
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

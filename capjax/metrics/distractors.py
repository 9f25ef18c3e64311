"""Retrieval among few: a caption must find its picture in a small gallery with distractors.

RD100, "random distractors" (Dessi et al., "Cross-Domain Image Captioning with Discriminative
Finetuning", CVPR 2023; Gaur et al., "No Detail Left Behind", TMLR 2024): the images are dealt at
random into bags of 100, every caption is a query among the 100 images of its bag, and recall at 1
is averaged over all. TrueMatch of the second paper is the same with bags of look-alike images that
somebody chose:

    bags = random_bags(images=10_000, size=100, seed=0)
    rd100 = bag_recall(caption_emb, image_emb, bags).value

`distractor_ranks` draws the distractors of each query anew instead. On average both give the same
recall; it also knows queries with several correct items, and leaves no item out.

Ties count against the model, as everywhere in `retrieval`. The released code of both papers counts
them for it, which matters where captions or pictures repeat: `strict_ties=False`.

Legend: Q queries, G gallery items, E embedding size, B bags of S items, D draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import normalised
from capjax.metrics.measure import Measure, of_sums
from capjax.metrics.retrieval import TIE, require_same_size, target_rows


def random_bags(images: int, size: int = 100, *, draws: int = 1, seed: int = 0) -> np.ndarray:
    """Deals the images into bags of `size`, `draws` times anew: int64 [draws * images//size, size].

    What remains of a deal when the size does not divide the number of images is left out of it, as
    in the papers; several draws leave out different images.

    Raises:
      UserError: fewer images than a bag holds, a size below 2, or no draws.
    """
    _require_draws(draws)
    if size < 2:
        raise UserError(f"bags of {size} hold no distractor: the size must be at least 2")
    if images < size:
        raise UserError(f"{images} images do not fill a bag of {size}: give a smaller size")
    generator = np.random.default_rng(seed)
    whole = images // size
    deals = [generator.permutation(images)[: whole * size] for _ in range(draws)]
    return np.concatenate(deals).reshape(draws * whole, size)


def bag_recall(
    query_emb: np.ndarray,
    gallery_emb: np.ndarray,
    bags: Sequence[Sequence[int]] | np.ndarray,
    *,
    query_item: Sequence[int] | np.ndarray | None = None,
    k: int = 1,
    strict_ties: bool = True,
) -> Measure:
    """Recall at k of each query among the items of its bag, over all items of all bags.

    Args:
      query_emb: [Q, E], need not be normalised.
      gallery_emb: [G, E], likewise.
      bags: rows of the gallery, B bags which may differ in size and share items.
      query_item: int [Q], the item each query belongs to; without it query i belongs to item i. The
        queries of one item are averaged.

    Returns:
      A measure over the G items; an item of no bag is NaN and counts nothing.

    Raises:
      UserError: shapes that do not match, a k below 1, no bags, a bag with an item twice or with
        one item only, or an item of a bag without a query.
    """
    query, gallery = normalised(query_emb, "query"), normalised(gallery_emb, "gallery")
    require_same_size(query, gallery)
    if k < 1:
        raise UserError(f"recall at {k} has no meaning: k must be at least 1")
    if not len(bags):
        raise UserError("there are no bags to retrieve in: give at least one")
    if query_item is None:
        query_item = np.arange(len(query))
    own = [row[0] for row in target_rows(query_item, len(query), len(gallery))]
    queries_of: list[list[int]] = [[] for _ in range(len(gallery))]
    for q, item in enumerate(own):
        queries_of[item].append(q)
    statistics = np.zeros((len(gallery), 2))  # recall summed over bags, bags
    for b, bag in enumerate(bags):
        items = _bag_items(bag, b, queries_of)
        members = [queries_of[item] for item in items]
        place = np.repeat(np.arange(len(items)), [len(member) for member in members])
        similarity = query[np.concatenate(members)] @ gallery[items].T
        hit = _rank(similarity, place, strict_ties) <= k
        statistics[items, 0] += np.bincount(place, hit) / np.bincount(place)
        statistics[items, 1] += 1
    return of_sums(statistics, _recall)


def distractor_ranks(
    query_emb: np.ndarray,
    gallery_emb: np.ndarray,
    targets: Sequence[int] | Sequence[Sequence[int]] | np.ndarray,
    *,
    distractors: int = 99,
    draws: int = 1,
    seed: int = 0,
    strict_ties: bool = True,
) -> np.ndarray:
    """Rank, from 1, of each query's best target among random distractors: int64 [Q, D].

    Distractors are drawn without replacement from the items that are not targets of the query, anew
    for each query and draw. Averaged over draws: `mean_of((ranks == 1).mean(axis=1))`.

    Args:
      query_emb, gallery_emb, targets: as `retrieval.ranks`.

    Raises:
      UserError: as `retrieval.ranks`; no distractors or draws; a gallery too small for them.
    """
    query, gallery = normalised(query_emb, "query"), normalised(gallery_emb, "gallery")
    require_same_size(query, gallery)
    _require_draws(draws)
    if distractors < 1:
        raise UserError(f"{distractors} distractors make no task: draw at least 1")
    generator = np.random.default_rng(seed)
    result = np.empty((len(query), draws), np.int64)
    for q, rows in enumerate(target_rows(targets, len(query), len(gallery))):
        rows = np.unique(rows)
        others = len(gallery) - len(rows)
        if others < distractors:
            raise UserError(
                f"query {q} has {others} items in the gallery that are not its target, too few to"
                f" draw {distractors} distractors: give a larger gallery or draw fewer"
            )
        best = np.max(gallery[rows] @ query[q])
        drawn = np.stack(
            [generator.choice(others, distractors, replace=False) for _ in range(draws)]
        )
        for row in rows:  # numbers of the others -> rows of the gallery: step over each target
            drawn += drawn >= row
        similarity = gallery[drawn] @ query[q]
        ahead = similarity >= best - TIE if strict_ties else similarity > best + TIE
        result[q] = 1 + ahead.sum(axis=1)
    return result


def _rank(similarity: np.ndarray, place: np.ndarray, strict_ties: bool) -> np.ndarray:
    """Rank of the item at `place` [Q] in each row of similarities [Q, S]."""
    own = similarity[np.arange(len(place)), place][:, None]
    if strict_ties:
        return np.count_nonzero(similarity >= own - TIE, axis=1)  # itself makes it 1
    return 1 + np.count_nonzero(similarity > own + TIE, axis=1)


def _recall(sums: np.ndarray) -> np.ndarray:
    hits, times = sums[..., 0], sums[..., 1]
    return np.divide(hits, times, out=np.full_like(hits, np.nan), where=times > 0)


def _bag_items(bag: Sequence[int], number: int, queries_of: list[list[int]]) -> np.ndarray:
    items = np.asarray(bag)
    if items.ndim != 1 or not np.issubdtype(items.dtype, np.integer) or len(items) < 2:
        raise UserError(f"bag {number} is {bag!r}: give a list of at least two rows of the gallery")
    if items.min() < 0 or items.max() >= len(queries_of):
        raise UserError(
            f"bag {number} holds rows {items.min()} to {items.max()} of a gallery of"
            f" {len(queries_of)}: rows count from 0"
        )
    if len(np.unique(items)) != len(items):
        raise UserError(f"bag {number} holds an item twice: its target would be ambiguous")
    silent = [int(item) for item in items if not queries_of[item]]
    if silent:
        raise UserError(
            f"items {silent[:3]} of bag {number} have no query: give their captions or drop the bag"
        )
    return items


def _require_draws(draws: int) -> None:
    if draws < 1:
        raise UserError(f"{draws} draws give no value: draw at least once")

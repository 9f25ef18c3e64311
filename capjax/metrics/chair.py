"""CHAIR: how much of what captions mention is not in the picture.

Rohrbach et al., "Object Hallucination in Image Captioning", EMNLP 2018, section 3.1:
  chair_i = mentions of objects that are not in the picture / mentions of objects, and
  chair_s = captions with at least one such mention / captions,
over the objects of a closed vocabulary (theirs: the 80 categories of COCO and a list of synonyms,
which is not shipped here). An object is in the picture if it is annotated there or if a reference
caption mentions it. A mention counts each time it stands in a caption. Later papers add
`object_recall` = true objects that are mentioned / true objects, because a caption that mentions
nothing hallucinates nothing.

Where this differs from the released code: our tokenizer drops punctuation before phrases are
looked for, plurals are stemmed by `plurals`, and every synonym of several words is found as a
phrase, which theirs finds only for a list of pairs.

    vocabulary = ObjectVocabulary.load("objects.json", rules="rules.json")
    references = References.from_captions(...)
    truth = true_objects(references, vocabulary, load_annotations("annotations.json"))
    result = chair(references.align(candidates).tokens, truth, vocabulary)
    result.measures["chair_s"].value, result.hallucinated[0]

Legend: N images with one caption each.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np

from capjax.errors import UserError
from capjax.metrics.measure import Measure, of_sums
from capjax.metrics.object_words import Mention, ObjectVocabulary, annotated_objects
from capjax.metrics.references import References, Tokens


class Chair(NamedTuple):
    """What `chair` gives.

    `measures` are chair_i, chair_s and object_recall. The chair_i of an image whose caption
    mentions no object is 0, the recall of one without objects NaN.
    """

    measures: dict[str, Measure]
    mentions: list[list[Mention]]  # of each caption, in its order
    hallucinated: list[list[Mention]]  # those of them that are not in the picture


def true_objects(
    references: References,
    vocabulary: ObjectVocabulary,
    annotations: Mapping[Hashable, Sequence[str]] | None = None,
) -> list[set[str]]:
    """The objects of each image: those its references mention, and those annotated if given.

    Raises:
      UserError: an image that `annotations` lack, or a name that the vocabulary lacks.
    """
    objects = [
        {mention.object for caption in captions for mention in vocabulary.mentions(caption)}
        for captions in references.tokens
    ]
    if annotations is not None:
        annotated = annotated_objects(annotations, references.ids, vocabulary)
        objects = [own | more for own, more in zip(objects, annotated, strict=True)]
    return objects


def chair(
    tokens: Sequence[Tokens],
    objects: Sequence[AbstractSet[str]],
    vocabulary: ObjectVocabulary,
) -> Chair:
    """Scores N tokenised captions against the objects that are in their pictures.

    Args:
      tokens: one caption an image, `Candidates.tokens`.
      objects: names of the vocabulary, as `true_objects` gives them, in the same order.

    Raises:
      UserError: counts that differ, a name that is none of the vocabulary's objects, no caption
        with an object, or no image with one.
    """
    if len(tokens) != len(objects):
        raise UserError(f"{len(tokens)} captions but objects of {len(objects)} images: give both")
    unknown = set().union(*objects) - set(vocabulary.objects)
    if unknown:
        raise UserError(
            f"{min(unknown)!r} is none of the vocabulary's objects: map names with true_objects"
        )
    mentions = [vocabulary.mentions(caption) for caption in tokens]
    if not any(mentions):
        raise UserError(
            "no caption mentions an object of the vocabulary: check that both speak of the same"
        )
    if not any(objects):
        raise UserError("no image shows an object of the vocabulary: check the annotations")
    hallucinated = [
        [mention for mention in own if mention.object not in true]
        for own, true in zip(mentions, objects, strict=True)
    ]
    found = [
        len({mention.object for mention in own} & true)
        for own, true in zip(mentions, objects, strict=True)
    ]
    wrong, all_mentions, true_count = (
        np.array([len(items) for items in lists], np.float64)
        for lists in (hallucinated, mentions, objects)
    )
    captions = np.ones(len(mentions))
    measures = {
        "chair_i": of_sums(np.stack([wrong, all_mentions], axis=1), _share(0.0)),
        "chair_s": of_sums(np.stack([wrong > 0, captions], axis=1), _share(0.0)),
        "object_recall": of_sums(np.stack([found, true_count], axis=1), _share(np.nan)),
    }
    return Chair(measures, mentions, hallucinated)


def _share(of_nothing: float):
    """Sums [..., 2] -> first / second, or `of_nothing` where the second is 0."""

    def combine(sums: np.ndarray) -> np.ndarray:
        part, whole = sums[..., 0], sums[..., 1]
        return np.divide(part, whole, out=np.full_like(part, of_nothing), where=whole > 0)

    return combine

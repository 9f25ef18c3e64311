"""CLIPScore and its variants with references, as functions of embeddings.

Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning", EMNLP 2021.
Whoever makes the embeddings chooses the encoder (the paper: CLIP ViT-B/32) and the prompt (the
paper's tool puts "A photo depicts" before each caption); report both. Embeddings need not be
normalised. All functions return one value an image; the value of a corpus is their mean.

Legend: N images, E embedding size, R references of an image (at most).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.errors import UserError

WEIGHT = 2.5  # stretches the cosines that CLIP gives, about 0 to 0.4, over 0 to 1


def clip_score(image_emb: np.ndarray, text_emb: np.ndarray) -> np.ndarray:
    """2.5 * max(cosine, 0) of each image [N, E] and its caption [N, E]: float64 [N].

    Raises:
      UserError: shapes that differ, or an embedding that is zero or not finite.
    """
    return WEIGHT * np.maximum(image_caption_cosine(image_emb, text_emb), 0.0)


def image_caption_cosine(image_emb: np.ndarray, text_emb: np.ndarray) -> np.ndarray:
    """Cosine of each image [N, E] with its caption [N, E], as it is: float64 [N].

    Some papers report it, or 100 times it, under the name of CLIPScore.

    Raises:
      UserError: as `clip_score`.
    """
    images, texts = normalised(image_emb, "image"), normalised(text_emb, "caption")
    if images.shape != texts.shape or images.ndim != 2:
        raise UserError(
            f"image embeddings {images.shape} and caption embeddings {texts.shape} must both be"
            " [images, size]: embed one caption an image with the same model"
        )
    return np.sum(images * texts, axis=-1)


def ref_only_clip_score(
    candidate_emb: np.ndarray, reference_emb: Sequence[np.ndarray] | np.ndarray
) -> np.ndarray:
    """Cosine of each caption [N, E] with the nearest of its references, at least 0: float64 [N].

    `reference_emb` is N arrays [R, E], R differing, or one array [N, R, E].

    Raises:
      UserError: other shapes, an image without references, or an embedding that is zero or not
        finite.
    """
    candidates = normalised(candidate_emb, "caption")
    if candidates.ndim != 2 or len(reference_emb) != len(candidates):
        raise UserError(
            f"caption embeddings {candidates.shape} and references of {len(reference_emb)} images"
            " do not match: give one caption [size] and one array [references, size] an image"
        )
    best = np.empty(len(candidates))
    for i, (candidate, embeddings) in enumerate(zip(candidates, reference_emb, strict=True)):
        references = normalised(embeddings, f"reference of image {i}")
        if references.ndim != 2 or not len(references) or references.shape[-1] != len(candidate):
            raise UserError(
                f"the references of image {i} have shape {references.shape}:"
                f" give [references, {len(candidate)}] with at least one reference"
            )
        best[i] = np.max(references @ candidate)
    return np.maximum(best, 0.0)


def ref_clip_score(
    image_emb: np.ndarray,
    candidate_emb: np.ndarray,
    reference_emb: Sequence[np.ndarray] | np.ndarray,
) -> np.ndarray:
    """Harmonic mean of `clip_score` and `ref_only_clip_score`, 0 where both are 0: float64 [N]."""
    return harmonic_mean(
        clip_score(image_emb, candidate_emb), ref_only_clip_score(candidate_emb, reference_emb)
    )


def harmonic_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """2ab / (a + b) for values that are not negative; 0 where both are 0."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    total = first + second
    return np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)


def normalised(embeddings: np.ndarray, what: str) -> np.ndarray:
    """Unit vectors along the last axis, in float64.

    Raises:
      UserError: a vector that is zero or not finite, which has no direction.
    """
    embeddings = np.asarray(embeddings, np.float64)
    norm = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    if not np.all(np.isfinite(norm)) or np.any(norm == 0):
        bad = np.argwhere(~(np.isfinite(norm) & (norm > 0)))[0][:-1].tolist()
        raise UserError(
            f"the {what} embedding at {bad} is zero or not finite: check the model that made it"
        )
    return embeddings / norm

"""CLIP-Image-Score: is a picture drawn from the caption alike to the picture that was captioned?

Ge et al., "Visual Fact Checker: Enabling High-Fidelity Detailed Caption Generation", CVPR 2024
(cosine of CLIP image embeddings; of 3D objects the mean over rendered views); the same primitive as
the evaluation framework of arXiv 2408.01723. Papers print 100 times the value. It punishes what a
caption leaves out and what it adds alike, and it depends on whoever draws: the generator, its seed
and its number of steps belong to the name of the score, and two captioners compare only when these
are the same. Image embeddings lie close together, so a cosine says little without
`others_score`, which pictures of other captions reach.

Legend: N images, V views of an image or pictures drawn from its caption, E embedding size.
"""

from __future__ import annotations

import numpy as np

from capjax.errors import UserError
from capjax.metrics.clipscore import normalised


def clip_image_score(image_emb: np.ndarray, drawn_emb: np.ndarray) -> np.ndarray:
    """Cosine of each image with the picture drawn from its caption: float64 [N].

    Args:
      image_emb: [N, E], or [N, V, E] for V views of an object.
      drawn_emb: [N, E]; or [N, V, E], the same views of the object made from its caption, or with
        images [N, E] several pictures drawn from a caption. The mean over V is taken.

    Raises:
      UserError: shapes that do not match, or an embedding that is zero or not finite.
    """
    return drawing_cosines(image_emb, drawn_emb).mean(axis=1)


def drawing_cosines(image_emb: np.ndarray, drawn_emb: np.ndarray) -> np.ndarray:
    """What `clip_image_score` averages, [N, V]: its spread over V is that of the generator."""
    images, drawn = _views(image_emb, drawn_emb)
    return np.sum(images * drawn, axis=-1)


def others_score(image_emb: np.ndarray, drawn_emb: np.ndarray) -> np.ndarray:
    """Mean cosine of each image with the pictures drawn for all other images: float64 [N].

    The floor of `clip_image_score`: what a caption earns that has nothing to do with its picture.

    Raises:
      UserError: as `clip_image_score`; fewer than two images.
    """
    images, drawn = _views(image_emb, drawn_emb)
    if len(images) < 2:
        raise UserError("one image has no others to compare with: give at least two")
    rest = (drawn.sum(axis=0) - drawn) / (len(drawn) - 1)
    return np.mean(np.sum(images * rest, axis=-1), axis=1)


def calibrated(score: np.ndarray, floor: float, ceiling: float) -> np.ndarray:
    """(score - floor) / (ceiling - floor): 0 for another picture's caption, 1 for a person's.

    Args:
      score: [...] values of `clip_image_score`.
      floor: the mean of `others_score`.
      ceiling: the mean score of captions that people wrote, drawn by the same generator.

    Raises:
      UserError: a ceiling that is not above the floor.
    """
    if not ceiling > floor:
        raise UserError(
            f"the ceiling {ceiling:g} is not above the floor {floor:g}: the generator draws nothing"
            " that this encoder recognises, so give another of the two"
        )
    return (np.asarray(score, np.float64) - floor) / (ceiling - floor)


def _views(image_emb: np.ndarray, drawn_emb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as unit vectors [N, V, E] and [N, V, E], the first perhaps with V = 1."""
    images, drawn = normalised(image_emb, "image"), normalised(drawn_emb, "drawn picture's")
    given = images.shape, drawn.shape
    images = images[:, None] if images.ndim == 2 else images
    drawn = drawn[:, None] if drawn.ndim == 2 else drawn
    if (
        images.ndim != 3
        or drawn.ndim != 3
        or images.shape[::2] != drawn.shape[::2]
        or images.shape[1] not in (1, drawn.shape[1])
        or not drawn.shape[1]
    ):
        raise UserError(
            f"image embeddings {given[0]} and those of drawn pictures {given[1]} do not match: give"
            " [images, size], or [images, views, size] with as many views of both"
        )
    return images, drawn

"""PAC-S and RefPAC-S as functions of embeddings: CLIPScore's formulas with another encoder.

Sarto et al., "Positive-Augmented Contrastive Learning for Image and Video Captioning Evaluation",
CVPR 2023, section 3. What makes a score a PAC-S is the encoder: CLIP whose last projections were
tuned on pairs augmented with generated captions and pictures. With the embeddings of plain CLIP
these functions give 2 / 2.5 of CLIPScore and no PAC-S. The released tool puts "A photo depicts"
before each caption.

Legend: N images, E embedding size, R references of an image (at most).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capjax.metrics.clipscore import harmonic_mean, image_caption_cosine, ref_only_clip_score

WEIGHT = 2.0  # as in the released tool; the tuned encoder's cosines are larger than plain CLIP's


def pac_score(image_emb: np.ndarray, text_emb: np.ndarray) -> np.ndarray:
    """2 * max(cosine, 0) of each image [N, E] and its caption [N, E]: float64 [N].

    Raises:
      UserError: shapes that differ, or an embedding that is zero or not finite.
    """
    return WEIGHT * np.maximum(image_caption_cosine(image_emb, text_emb), 0.0)


def ref_pac_score(
    image_emb: np.ndarray,
    candidate_emb: np.ndarray,
    reference_emb: Sequence[np.ndarray] | np.ndarray,
) -> np.ndarray:
    """Harmonic mean of `pac_score` and the cosine with the nearest reference: float64 [N].

    `reference_emb` is N arrays [R, E], R differing, or one array [N, R, E]. The nearest reference's
    cosine counts as 0 where it is negative, and the mean of two zeros is 0; the released tool has
    no rule for either.

    Raises:
      UserError: shapes that do not match, an image without references, or an embedding that is zero
        or not finite.
    """
    return harmonic_mean(
        pac_score(image_emb, candidate_emb), ref_only_clip_score(candidate_emb, reference_emb)
    )

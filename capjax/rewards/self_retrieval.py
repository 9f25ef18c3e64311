"""Self-retrieval: does a frozen encoder find the picture by its caption, among those of the batch?

The reward of a caption is log softmax of the scaled cosines with its own picture and all others,
at its own (DiscriTune, arXiv 2304.01662): -log of the batch's size for a caption that says nothing,
0 for one that tells the picture from all. Other measures of the same comparison:

    log_softmax   log of the share of its own picture
    accuracy      1 where its own picture comes first, ties included, else 0
    similarity    the scaled cosine itself, whatever the others are

The distractors are the whole batch, also with accumulate_steps > 1. Hard negatives come on top:
`negatives` names an .npz file with `keys` [N] of the training pictures, their `embeddings` [N,E] by
the same encoder and their nearest `neighbours` int [N,n], of which the first `hard` are taken
(`write_negatives` makes one). A picture that is twice in the batch, or its own neighbour, is no
distractor of itself.

Letters: B pictures, b of a microbatch, K captions of each, n neighbours, N in the file, E width.
Raises `UserError` for a batch of one, or a file that lacks pictures of the batch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError
from capjax.rewards.captions import Captions
from capjax.rewards.encoder import EncoderReward
from capjax.whole_file import whole_file

MEASURES = ("log_softmax", "accuracy", "similarity")
SAME = 1 - 1e-5  # cosine above which two pictures are one


class Reward(EncoderReward):
    """run: the encoder's run directory. scale: of the cosines; 0: the one that it has learned."""

    def __init__(
        self,
        *,
        run: str,
        reward: str,
        tokenizer: Any,
        prefix: str = "",
        retokenise: bool = False,
        measure: str = "log_softmax",
        scale: float = 0.0,
        negatives: str = "",
        hard: int = 0,
    ):
        if measure not in MEASURES:
            raise UserError(f"measure={measure!r} must be one of {', '.join(MEASURES)}")
        if scale < 0:
            raise UserError(f"scale={scale} must be above 0, or 0 for the encoder's own")
        if bool(negatives) != (hard > 0):
            raise UserError(
                f"negatives={negatives!r} with hard={hard}: give both, a file of neighbours and "
                "how many of them, or neither"
            )
        super().__init__(run, reward, tokenizer, prefix, retokenise)
        self._measure, self._scale = measure, scale
        self._negatives = _Negatives(negatives, hard) if negatives else None

    def look_up(
        self, keys: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, np.ndarray]:
        """The embeddings of each picture's neighbours: float32 [B,n,E]."""
        return {"negatives": self._negatives.of(keys)} if self._negatives else {}

    def prepare(self, arrays: Any, batch: Any, looked_up: dict[str, jax.Array]) -> Any:
        """(pictures [B,E], neighbours [B,n,E] or None)."""
        images = self._encoder.embed_images(arrays, batch["image"])
        if len(images) < 2 and self._negatives is None:
            raise UserError(
                "self-retrieval has no distractor in a batch of 1: raise config.batch_size"
            )
        return images, looked_up.get("negatives")

    def score(self, arrays: Any, prepared: Any, captions: Captions) -> jax.Array:
        """float32 [b,K]."""
        images, hard = prepared
        texts = self._encoder.embed_rows(arrays, self._encoder.rows(captions, self._name))
        scale = self._scale or jnp.exp(arrays["logit_scale"])
        return retrieval(texts, images, captions.own, scale, hard, self._measure)


def retrieval(
    texts: jax.Array,
    images: jax.Array,
    own: jax.Array,
    scale: jax.Array | float,
    hard: jax.Array | None = None,
    measure: str = "log_softmax",
) -> jax.Array:
    """[b,K] for texts [b,K,E] of the pictures own [b] among images [B,E] and neighbours [B,n,E]."""
    target = images[own]
    score = scale * jnp.einsum("be,bke->bk", target, texts)
    others = scale * jnp.einsum("je,bke->bkj", images, texts)
    same = (target @ images.T >= SAME) | (jnp.arange(len(images)) == own[:, None])
    if hard is not None:
        near = hard[own]
        others = jnp.concatenate([others, scale * jnp.einsum("bne,bke->bkn", near, texts)], -1)
        same = jnp.concatenate([same, jnp.einsum("be,bne->bn", target, near) >= SAME], -1)
    others = jnp.where(same[:, None], -jnp.inf, others)
    if measure == "similarity":
        return score
    if measure == "accuracy":
        return (score >= others.max(-1)).astype(jnp.float32)
    return score - jax.nn.logsumexp(jnp.concatenate([score[..., None], others], -1), -1)


class _Negatives:
    """Neighbours of the training pictures, from a file."""

    def __init__(self, path: str, hard: int):
        self._path, self._hard = path, hard
        try:
            with np.load(path, allow_pickle=False) as stored:
                keys, self._embeddings = stored["keys"], stored["embeddings"]
                self._neighbours = stored["neighbours"]
        except FileNotFoundError as error:
            raise UserError(f"there is no file of neighbours {path!r}") from error
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path!r} holds no neighbours: write it with rewards.self_retrieval."
                "write_negatives"
            ) from error
        if self._neighbours.shape[1] < hard:
            raise UserError(
                f"hard={hard}, but {path!r} has {self._neighbours.shape[1]} neighbours of each "
                "picture: ask for fewer"
            )
        self._row = {str(key): row for row, key in enumerate(keys)}

    def of(self, keys: Sequence[str]) -> np.ndarray:
        missing = [key for key in keys if key not in self._row]
        if missing:
            raise UserError(
                f"{self._path!r} lacks the picture {missing[0]!r}: write it for all training data"
            )
        rows = [self._row[key] for key in keys]
        return self._embeddings[self._neighbours[rows, : self._hard]].astype(np.float32)


def write_negatives(
    path: str | Path, keys: Sequence[str], embeddings: np.ndarray, count: int, block: int = 4096
) -> None:
    """Writes the `count` nearest others of each picture; embeddings [N,E] are of unit length."""
    if not 0 < count < len(keys):
        raise UserError(f"{count} neighbours of {len(keys)} pictures: ask for 1 or more, but fewer")
    nearest = []
    for start in range(0, len(keys), block):
        cosines = embeddings[start : start + block] @ embeddings.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :count])
    with whole_file(path, "wb") as file:
        np.savez(
            file,
            keys=np.array(keys),
            embeddings=np.asarray(embeddings, np.float32),
            neighbours=np.concatenate(nearest).astype(np.int32),
        )

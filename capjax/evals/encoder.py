"""Embeddings of pictures and texts by any model with `embed_image` and `embed_text`.

Letters: N items, B batch, S side in pixels, E embedding width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np

from capjax.parallel.rows import get_rows, put_rows


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(model: nn.Module, method: str, params, rows: jax.Array) -> jax.Array:
    return model.apply({"params": params}, rows, method=method)


class Encoder:
    """A two-tower model with its tokenizer; unit-length float32 embeddings as NumPy arrays.

    Batches have one size (`batch_size`; the last is filled up), so that nothing is compiled twice.
    """

    def __init__(self, model: nn.Module, params, tokenizer, batch_size: int = 128):
        self.model, self.params, self.tokenizer = model, params, tokenizer
        self.batch_size = batch_size

    def images(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N,S,S,3] -> [N,E]."""
        return self._in_batches("embed_image", images)

    def image_features(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N,S,S,3] -> [N,D], what the projection is made from; the embeddings [N,E] of a
        model that does not tell."""
        known = hasattr(type(self.model), "image_features")
        return self._in_batches("image_features" if known else "embed_image", images)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> [N,E]; as rows, see there."""
        return self._in_batches("embed_text", self.rows(texts))

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> int32 [N,L]; what exceeds the context is cut, an empty text is BOS EOS."""
        rows = np.zeros((len(texts), self.tokenizer.max_length), np.int32)
        for row, text in zip(rows, texts, strict=True):
            if text.strip():
                row[:] = self.tokenizer.encode(text, truncate=True)
            else:
                row[:] = self.tokenizer.row([])
        return rows

    def _in_batches(self, method: str, rows: np.ndarray) -> np.ndarray:
        embeddings = []
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            filled = np.zeros((self.batch_size, *rows.shape[1:]), rows.dtype)
            filled[: len(part)] = part
            embedded = _embed(self.model, method, self.params, put_rows(filled, self.params))
            embeddings.append(get_rows(embedded)[: len(part)])
        return np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32)

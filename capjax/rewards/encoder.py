"""A frozen encoder of pictures and texts that judges captions: the run directory of a dual encoder.

Captions of the same vocabulary go in as they were drawn, inside the step. Of another one they go
through the host: the captioner's tokens become text and the text becomes the encoder's tokens. A
`prefix` stands before every caption (CLIPScore's "A photo depicts").

Pictures of another size than the captioner's are resized inside the step, by JAX's cubic rule with
antialiasing, not by Pillow's.

Letters: B pictures, K captions of each, R positions of a row, S side in pixels, E embedding width.
Raises `UserError` for a run that embeds no pictures and texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capjax.errors import UserError
from capjax.rewards.captions import Captions, rows_for


class FrozenEncoder:
    """The model of a run, its tokenizer and its parameters; these are `arrays` of the reward.

    tokenizer: the captioner's. retokenise=True goes through the host also where both have the same
    vocabulary: a drawn caption need not be cut into tokens as its text would be.
    """

    def __init__(self, run: str, tokenizer: Any, prefix: str = "", retokenise: bool = False):
        # Imported here: it reads checkpoints, and runs import the tasks' room.
        from capjax.runs import open_run

        opened = open_run(run)
        self.model, self.params = opened.model, opened.params
        for method in ("embed_image", "embed_text"):
            if not hasattr(type(self.model), method):
                raise UserError(
                    f"the run {run!r} has no {method}: to judge captions give the run of a dual "
                    "encoder, such as one of capjax.models.dual_encoder"
                )
        self._own, self._prefix = opened.tokenizer, prefix
        same = tokenizer.fingerprint == self._own.fingerprint
        self.tokenizer = None if same and not retokenise else self._own
        self._begun = tuple(self._own.ids(prefix)) if prefix.strip() else ()

    def text(self, caption: str) -> np.ndarray:
        """int32 [R]: the row of a caption; of an empty one that of the empty text."""
        if not caption.strip():
            return self._own.row([])
        return self._own.encode(f"{self._prefix.strip()} {caption}".strip(), truncate=True)

    def embed_images(self, params: Any, image: jax.Array) -> jax.Array:
        """uint8 [B,S,S,3] -> float32 [B,E], unit length."""
        side = self.model.image_size
        if image.shape[1] != side:
            shape = (len(image), side, side, 3)
            sized = jax.image.resize(image.astype(jnp.float32), shape, "cubic")
            image = jnp.clip(jnp.round(sized), 0, 255).astype(jnp.uint8)
        return self.model.apply({"params": params}, image, method="embed_image")

    def embed_rows(self, params: Any, rows: jax.Array) -> jax.Array:
        """int32 [..,R] -> float32 [..,E], unit length."""
        flat = rows.reshape(-1, rows.shape[-1])
        embedded = self.model.apply({"params": params}, flat, method="embed_text")
        return embedded.reshape(*rows.shape[:-1], -1)

    def rows(self, captions: Captions, name: str) -> jax.Array:
        """int32 [b,K,R]: the captions' rows, drawn or by way of the host."""
        if self.tokenizer is not None:
            return captions.rows[name]
        special = self._own.special_tokens
        return rows_for(captions, self._begun, special, self._own.max_length)

    def reference_rows(self, references: Sequence[Sequence[str]], most: int) -> np.ndarray:
        """int32 [B,most,R] of the first references of each picture, the first again for want of
        more: a maximum over them does not change."""
        return np.stack(
            [
                np.stack([self.text(texts[i if i < len(texts) else 0]) for i in range(most)])
                for texts in references
            ]
        )


class EncoderReward:
    """What rewards by a frozen encoder share; see `capjax.rewards` for the names.

    run, tokenizer, prefix, retokenise: `FrozenEncoder`'s. reward: what the config calls it.
    """

    def __init__(self, run: str, reward: str, tokenizer: Any, prefix: str, retokenise: bool):
        self._encoder = FrozenEncoder(run, tokenizer, prefix, retokenise)
        self._name = reward
        self.tokenizer, self.text = self._encoder.tokenizer, self._encoder.text

    @property
    def arrays(self) -> Any:
        """The encoder's parameters."""
        return self._encoder.params

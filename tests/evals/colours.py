"""A world for tests of evaluators: pictures of one colour, and a model that sees just that.

Named in sections as "colours". Words are numbers of `WORDS`; their vectors are exact.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

VECTORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (1, 1, 1)}
WORDS = ("", *VECTORS, "a", "photo", "not")


class Source:
    """Record i has colour i of VECTORS with a brightness of its own and a little noise."""

    def __init__(self, size=13, first=0, queries=False, label="label", noise=30):
        self.size, self.first, self.queries, self.label = size, first, queries, label
        self.noise = noise

    def __len__(self):
        return self.size

    def captions(self, index):
        return [f"a {self._name(index)} photo"]

    def _name(self, index):
        return list(VECTORS)[(self.first + index) % len(VECTORS)]

    def __getitem__(self, index):
        name = self._name(index)
        rng = np.random.default_rng(self.first + index)
        colour = 150 * np.array(VECTORS[name]) + rng.integers(0, self.noise, 3)
        image = np.full((8, 8, 3), colour, np.uint8)
        record = {"key": f"{name} {index}", "image": image, "captions": self.captions(index)}
        record[self.label] = name
        if self.queries and name == "red" and index + 1 < self.size:
            target = [f"green {i}" for i in range(self.size) if self._name(i) == "green"]
            record["queries"] = [{"add": "green", "remove": "red", "target": target}]
        return record


class Tokenizer:
    """Splits at blanks; unknown words leave no trace."""

    max_length = 6

    def encode(self, text, truncate=False):
        ids = [WORDS.index(word) for word in text.split() if word in WORDS]
        return self.row(ids[: self.max_length])

    def row(self, ids):
        return np.array([*ids, *[0] * (self.max_length - len(ids))], np.int32)


class Model(nn.Module):
    """The mean colour of a picture; the sum of the colours of a text's words."""

    image_size: int = 8

    def setup(self):
        self.scale = self.param("scale", nn.initializers.ones, ())

    def embed_image(self, image):
        return self._unit(self.image_features(image))

    def image_features(self, image):
        return self.scale * (jnp.mean(image.astype(jnp.float32), axis=(1, 2)) / 255 + 0.01)

    def embed_text(self, tokens):
        table = np.zeros((len(WORDS), 3), np.float32)
        table[1 : 1 + len(VECTORS)] = list(VECTORS.values())
        return self._unit(jnp.asarray(table)[tokens].sum(1) + 1e-3)

    def _unit(self, x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


PARAMS = {"scale": jnp.ones(())}

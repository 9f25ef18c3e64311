"""A captioner so small that all of its captions can be written down, and what judges them.

The logits of the next token depend on the token before, on its position and on the picture's mean
colour. With V = 6 (two words) and L = 4 there are 15 captions: `captions()` lists them. Also an
encoder of one layer, a tokenizer of few words, and rewards as JAX functions and of strings.

Letters: B pictures, K captions of each, L positions of a row, T = L - 1, V vocabulary.
"""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax.models.coca import ImageFeatures, unit
from capjax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens()
WORDS = ("red", "blue")


class Model(nn.Module):
    vocab_size: int
    max_length: int
    image_size: int
    special_tokens: SpecialTokens = SPECIAL

    def setup(self):
        shape = (self.max_length - 1, self.vocab_size, self.vocab_size)
        self.table = self.param("table", nn.initializers.normal(0.7), shape)
        self.colour = self.param("colour", nn.initializers.normal(1.0), (3, self.vocab_size))

    def encode_image(self, image, train=False):
        context = (image.mean((1, 2)) / 255.0 @ self.colour)[:, None]
        return ImageFeatures(context[:, 0], context)

    def encode_text(self, tokens, train=False):
        return None, tokens[:, :-1]

    def caption_logits(self, words, context, train=False):
        return self.table[jnp.arange(words.shape[1]), words] + context

    def start_decoding(self, context, length=None):
        return {"context": context}

    def decode_step(self, tokens, position, state):
        return self.table[position, tokens] + state["context"][:, 0], state

    def __call__(self, image, tokens, train=False):
        _, words = self.encode_text(tokens)
        return self.caption_logits(words, self.encode_image(image).context)


class Encoder(nn.Module):
    """Sum of word vectors, and the mean colour."""

    vocab_size: int = 6
    max_length: int = 6
    image_size: int = 2
    special_tokens: SpecialTokens = SPECIAL

    def setup(self):
        self.words = nn.Embed(self.vocab_size, 8)
        self.text_projection = nn.Dense(4, use_bias=False)
        self.image_projection = nn.Dense(4)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(1.0), ())

    def embed_image(self, image, train=False):
        return unit(self.image_projection(image.mean((1, 2)) / 255.0))

    def embed_text(self, tokens, train=False):
        read = self.special_tokens.until_end(tokens)
        return unit(self.text_projection((self.words(tokens) * read[..., None]).sum(1)))

    def __call__(self, image, tokens, train=False):
        return self.embed_image(image), self.embed_text(tokens)


class Tokenizer:
    """Words by number: 4 is "red", 5 is "blue"."""

    special_tokens = SPECIAL
    vocab_size, fingerprint = 6, "toy"

    def __init__(self, max_length=4):
        self.max_length = max_length

    def ids(self, text):
        return [4 + WORDS.index(word) for word in text.split()]

    def row(self, ids):
        row = np.zeros(self.max_length, np.int32)
        row[: len(ids) + 2] = [1, *ids, 2]
        return row

    def encode(self, text, truncate=False):
        return self.row(self.ids(text)[: self.max_length - 2])

    def decode(self, ids):
        words = itertools.takewhile(lambda i: i != 2, ids)
        return " ".join(WORDS[i - 4] for i in words if i > 3)


def worth(text: str, key: str = "") -> float:
    """An arbitrary reward of a caption: of words by position, and one of the picture's kind."""
    values = {"red": 0.9, "blue": -0.4}
    value = 1.0 + sum(values[word] * (0.5 + place) for place, word in enumerate(text.split()))
    return value + (1.5 if key.startswith("odd") and text.endswith("blue") else 0.0)


def by_strings(candidates, references, keys, factor=1.0):
    return [factor * worth(text, key) for text, key in zip(candidates, keys, strict=True)]


class Reward:
    """`worth` of each caption as a table, inside the step; odd pictures are light ones."""

    def __init__(self, *, tokenizer, length=4):
        texts = np.zeros((6,) * (length - 1) + (2,))
        for row in captions(length):
            text = tokenizer.decode(row[1:])
            texts[tuple(row[1:])] = worth(text), worth(text, "odd")
        self.arrays = jnp.asarray(texts, jnp.float32)

    def prepare(self, arrays, batch, looked_up):
        return (batch["image"].mean((1, 2, 3)) > 128).astype(jnp.int32)

    def score(self, arrays, prepared, captions):
        kind = jnp.broadcast_to(prepared[captions.own][:, None], captions.tokens.shape[:2])
        return arrays[(*jnp.moveaxis(captions.tokens[..., 1:], -1, 0), kind)]


def captions(length=4):
    """Every caption as a row of `length`: ended by EOS, or cut where there is no more room."""
    rows = []
    for count in range(length):
        for words in itertools.product((4, 5), repeat=count):
            row = [1, *words, *([2] if count < length - 1 else [])]
            rows.append(tuple(row + [0] * (length - len(row))))
    return rows


def batch(size):
    """(arrays, rows): half of the pictures are light ("odd"), half dark."""
    odd = np.arange(size) % 2
    colours = np.where(odd[:, None], [240, 200, 180], [10, 90, 40]).astype(np.uint8)
    image = np.broadcast_to(colours[:, None, None], (size, 2, 2, 3)).copy()
    rows = captions()
    tokens = np.array([rows[i % len(rows)] for i in range(size)], np.int32)
    keys = [f"{'odd' if o else 'even'} {i}" for i, o in enumerate(odd)]
    references = [["red blue", "blue"] if o else ["red red", "red"] for o in odd]
    return {"image": image, "tokens": tokens}, {"key": keys, "captions": references}


def params(length=4, seed=0):
    model = Model(6, length, 2)
    image, tokens = jnp.zeros((1, 2, 2, 3), jnp.uint8), jnp.zeros((1, length), jnp.int32)
    return model, model.init(jax.random.key(seed), image, tokens)["params"]

"""A vocabulary whose padding is also a word, as CLIP's is: trained on and written like any other.

Letters: B batch, L caption positions, V vocabulary.
"""

import importlib
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.decode.greedy import greedy
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens
from capjax.tasks import caption

START, END, VOCABULARY, LENGTH = 5, 6, 7, 5
SPECIAL = SpecialTokens(pad=0, bos=START, eos=END, never_written=(START,))


class Features(NamedTuple):
    context: jax.Array


class Bigrams(nn.Module):
    """Logits [V] after each token [V,V], whatever the picture."""

    vocab_size: int = VOCABULARY
    max_length: int = LENGTH
    image_size: int = 2
    special_tokens: SpecialTokens = SPECIAL

    def setup(self):
        self.table = self.param("table", nn.initializers.normal(1.0), (VOCABULARY, VOCABULARY))

    def encode_image(self, image, train=False):
        return Features(jnp.ones((len(image), 1, 2)))

    def encode_text(self, tokens, train=False):
        return None, tokens[:, :-1]

    def caption_logits(self, words, context, train=False):
        return self.table[words]

    def start_decoding(self, context, length=None):
        return ()

    def decode_step(self, tokens, position, state):
        return self.table[tokens], state

    def __call__(self, image, tokens):
        return self.caption_logits(self.encode_text(tokens)[1], self.encode_image(image))


@pytest.mark.parametrize("name", ["capjax.models.coca", "capjax.models.dual_encoder"])
def test_models_that_begin_with_bos_refuse_a_vocabulary_without_it(name):
    special = SpecialTokens(pad=1, bos=None, eos=1, never_written=())
    model = importlib.import_module(name).Model(20, 6, 16, special_tokens=special)
    with pytest.raises(UserError, match="captions begin with a first token and the tokenizer has"):
        jax.eval_shape(
            model.init,
            jax.random.key(0),
            jnp.zeros((2, 16, 16, 3), jnp.uint8),
            jnp.ones((2, 6), int),
        )
    with pytest.raises(UserError, match="captions begin with a first token"):
        _ = special.start


def test_the_loss_counts_the_word_and_not_the_padding():
    tokens = np.array([[START, 0, 3, END, 0], [START, 2, 0, 0, END]], np.int32)
    batch = {"image": jnp.zeros((2, 2, 2, 3), jnp.uint8), "tokens": jnp.asarray(tokens)}
    task = caption.Task(model=Bigrams(), conditioning_dropout=0.0)
    params = task.init(jax.random.key(0))
    loss, metrics = task.loss(params, batch, jax.random.key(1))
    table = np.asarray(params["table"], np.float64)
    log_p = table - np.log(np.exp(table).sum(1, keepdims=True))
    pairs = [(START, 0), (0, 3), (3, END), (START, 2), (2, 0), (0, 0), (0, END)]
    np.testing.assert_allclose(loss, -np.mean([log_p[pair] for pair in pairs]), rtol=1e-5)
    assert metrics["weight"] == len(pairs)


def test_greedy_writes_the_word_and_ends_at_the_vocabularys_end():
    table = np.full((VOCABULARY, VOCABULARY), -9.0, np.float32)
    table[START, 0] = table[0, 2] = table[2, START] = 5.0
    table[2, END] = 4.0  # START is likelier but never written
    tokens, _, truncated = greedy(Bigrams(), {"table": jnp.asarray(table)}, jnp.ones((2, 1, 2)))
    assert np.asarray(tokens).tolist() == [[0, 2, END, 0]] * 2
    assert not np.asarray(truncated).any()


@pytest.mark.parametrize("module", [np, jnp])
def test_one_token_may_begin_and_end_a_text(module):
    """GPT-2's vocabulary: BOS, EOS and padding are the same id, 6 here."""
    special = SpecialTokens(pad=6, bos=6, eos=6, never_written=())
    rows = module.array([[6, 1, 2, 6, 6], [6, 6, 6, 6, 6], [6, 1, 2, 3, 4]])
    np.testing.assert_array_equal(
        special.until_end(rows),
        [[True] * 4 + [False], [True] * 2 + [False] * 3, [True] * 5],
    )
    # What is written after BOS: the words and EOS; of an empty caption EOS alone.
    np.testing.assert_array_equal(
        special.to_write(rows),
        [[True] * 3 + [False], [True] + [False] * 3, [True] * 4],
    )

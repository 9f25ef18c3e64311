"""Perplexity of texts: by hand for a model that finds every token equally likely."""

import jax.numpy as jnp
import numpy as np
import pytest

from capjax.data import tokenizer
from capjax.errors import UserError
from capjax.evals.perplexity import Evaluator
from capjax.special_tokens import SpecialTokens

SOURCE = {"name": "experiments.guiding.tags", "style": "tags", "size": 3, "pictures": False}


class Favourite:
    """Logits of `gain` for EOS and 0 for all others, after anything."""

    special_tokens = SpecialTokens()

    def __init__(self, vocab_size, gain):
        self.vocab_size, self.gain = vocab_size, gain

    def apply(self, variables, tokens):
        logits = jnp.zeros((tokens.shape[0], tokens.shape[1] - 1, self.vocab_size))
        return logits.at[..., self.special_tokens.eos].set(self.gain)


def test_perplexity_counts_every_token_and_the_end():
    rows = tokenizer.train(["photo red circle 12"] * 4, vocab_size=40, max_length=48)
    params = {"none": np.zeros(1)}
    size = rows.vocab_size
    flat = Evaluator(model=Favourite(size, 0.0), tokenizer=rows, data=SOURCE, batch_size=4)
    found = flat.run(params)
    assert found["perplexity"] == pytest.approx(size, rel=1e-5)
    assert found["nats_per_token"] == pytest.approx(np.log(size), rel=1e-5)
    # One token of each text is the end, which is `gain` likelier than any other.
    gain, total = 3.0, np.log(size - 1 + np.exp(3.0))
    tokens = [len(rows.ids(text)) + 1 for text in flat.texts]
    model = Favourite(size, gain)
    told = Evaluator(model=model, tokenizer=rows, data=SOURCE, batch_size=4).run(params)
    expected = total - gain * len(tokens) / sum(tokens)
    assert told["nats_per_token"] == pytest.approx(expected, rel=1e-5)
    assert len(flat.texts) == 15
    assert len(Evaluator(model=model, tokenizer=rows, data=SOURCE, limit=2).texts) == 10


def test_no_texts_are_refused(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"captions": ["a dog"]}\n')
    data = {"name": "experiments.guiding.documents", "paths": [str(tmp_path / "none.jsonl")]}
    with pytest.raises(UserError, match="cannot read the corpus"):
        Evaluator(model=None, tokenizer=None, data=data)

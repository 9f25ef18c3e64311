"""A real language model from its published file: the story it is known to tell, word for word.

The file is llama2.c's export of a Llama of 260,000 parameters, trained on TinyStories.
"""

import jax
import numpy as np
import pytest

from capjax import runs
from capjax.decode.greedy import greedy
from capjax.tasks.language import Task
from capjax.weights.exporting import export
from capjax.weights.importing import import_checkpoint
from capjax.weights.verify import differences

# doc/stories260K.md of karpathy/llama2.c; temperature 0.
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do."
)
# Of the kind it was trained on, and written for this test.
HELD_OUT = (
    "One day, a boy named Tom went to the park with his dog. The dog saw a bird and ran fast. Tom "
    "was scared because he did not want to lose his dog. He ran and ran. Then he saw his dog under "
    "a big tree. Tom was very happy and gave his dog a big hug.",
    "Mia had a small red boat. She liked to play with it in the water. Her brother wanted to play "
    "too, but Mia said no. Mom told her to share. Mia said sorry, and they played together.",
)


@pytest.fixture(scope="module")
def run(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stories") / "run"
    import_checkpoint(shared / "data" / "stories260k" / "stories260K.bin", folder)
    return runs.open_run(folder)


def test_it_tells_the_documented_story(run):
    model = run.model.clone(max_length=160)
    found = greedy(model, run.params, np.zeros((1, 0, 1), np.float32))
    assert run.tokenizer.decode(np.asarray(found.tokens[0])).startswith(STORY)


def test_its_loss_on_unseen_stories_is_that_of_a_language_model(run):
    """TinyStories' validation loss is 1.2968 a token; words in no order are unlikely."""
    rng = np.random.default_rng(0)
    shuffled = [" ".join(rng.permutation(text.split())) for text in HELD_OUT]

    @jax.jit
    def loss(params, tokens):
        return Task(model=run.model).loss(params, {"tokens": tokens}, jax.random.key(0))[0]

    def per_token(texts):
        return float(loss(run.params, run.tokenizer.encode_batch(texts)))

    assert 1.0 < per_token(HELD_OUT) < 2.0
    assert per_token(shuffled) > per_token(HELD_OUT) + 1.5


def test_it_goes_out_as_a_llama_and_comes_in_again(run, tmp_path):
    """llama2.c's file holds sizes and no names: the export has config.json and tokenizer.model."""
    export(run.directory, tmp_path / "llama")
    names = {path.name for path in (tmp_path / "llama").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.model"} <= names
    again = import_checkpoint(tmp_path / "llama", tmp_path / "again")
    assert again.tokenizer.ids(STORY) == run.tokenizer.ids(STORY)  # what fills a row differs
    assert again.config.model == run.config.model
    assert not any(d.largest for d in differences(tmp_path / "again", tmp_path / "llama"))

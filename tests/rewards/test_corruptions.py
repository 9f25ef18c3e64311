"""What each corruption does to captions, and the task that learns to tell them."""

import jax
import jax.numpy as jnp
import numpy as np
import policy_toy as toy
import pytest

from capjax.rewards import corruptions
from capjax.rewards.corruptions import KINDS, corrupt, corrupt_by
from capjax.special_tokens import SpecialTokens
from capjax.tasks.grammar import Task

SPECIAL, VOCABULARY, LENGTH, ROWS = SpecialTokens(), 30, 24, 300


def rows(words=9):
    rng = np.random.default_rng(0)
    tokens = np.zeros((ROWS, LENGTH), np.int32)
    for row in tokens:
        row[: words + 2] = [1, *rng.choice(np.arange(4, VOCABULARY), words, replace=False), 2]
    return tokens


@pytest.fixture(scope="module")
def broken():
    """(captions of so many words, their corruptions of one kind) as lists of words."""
    function = jax.jit(corrupt_by, static_argnums=(3, 4))

    def of(tokens, kind):
        kinds = np.full(ROWS, KINDS.index(kind), np.int32)
        found = np.asarray(function(jax.random.key(5), tokens, kinds, SPECIAL, VOCABULARY))
        assert np.all(found[:, 0] == 1)
        assert np.all((found == 2).sum(1) == 1)
        return list(map(words_of, tokens)), list(map(words_of, found))

    return of


def words_of(row):
    end = row.tolist().index(2)
    assert not row[end + 1 :].any()
    assert all(word > 3 for word in row[1:end])
    return row[1:end].tolist()


def test_repeat_copies_what_is_there(broken):
    before, after = broken(rows(), "repeat")
    grown = {len(b) - len(a) for a, b in zip(before, after, strict=True)}
    assert grown == {1, 2, 3, 4, 6, 9}
    assert all(set(a) == set(b) for a, b in zip(before, after, strict=True))


def test_remove_takes_one_to_three_neighbours(broken):
    before, after = broken(rows(), "remove")
    assert {len(a) - len(b) for a, b in zip(before, after, strict=True)} == {1, 2, 3}
    for a, b in zip(before, after, strict=True):
        gone = [i for i, word in enumerate(a) if word not in b]
        assert gone == list(range(gone[0], gone[0] + len(gone)))
        assert [word for word in a if word in b] == b


def test_insert_keeps_the_words_in_order(broken):
    before, after = broken(rows(), "insert")
    assert {len(b) - len(a) for a, b in zip(before, after, strict=True)} == {1, 2, 3}
    for a, b in zip(before, after, strict=True):
        rest = iter(b)
        assert all(word in rest for word in a)


def test_swap_changes_one_to_three(broken):
    before, after = broken(rows(), "swap")
    changed = [
        sum(x != y for x, y in zip(a, b, strict=True)) for a, b in zip(before, after, strict=True)
    ]
    assert set(changed) == {1, 2, 3}


def test_shuffle_keeps_the_words_in_another_order(broken):
    for words in (2, 9):
        before, after = broken(rows(words), "shuffle")
        assert all(sorted(a) == sorted(b) and a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_one_word_is_enough(broken, kind):
    before, after = broken(rows(1), kind)
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_full_row_is_cut_before_its_end(broken):
    _, after = broken(rows(LENGTH - 2), "repeat")
    assert {len(b) for b in after} == {LENGTH - 2}


def test_all_kinds_are_drawn_alike(monkeypatch):
    seen = []
    monkeypatch.setattr(corruptions, "corrupt_by", lambda *args: seen.append(args[2]))
    corrupt(jax.random.key(0), jnp.zeros((10_000, 4), jnp.int32), SPECIAL, VOCABULARY)
    np.testing.assert_allclose(np.bincount(seen[0]) / 10_000, [0.2] * 5, atol=0.02)


def test_the_task_adds_the_head_to_the_contrastive_loss():
    model, (arrays, _) = toy.Encoder(max_length=4), toy.batch(8)
    task = Task(model=model, grammar_weight=2.0)
    params = jax.jit(task.init)(jax.random.key(0))
    (loss, metrics), grads = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(
        params, arrays, jax.random.key(1)
    )
    expected = metrics["contrastive_loss"] + 2 * metrics["grammar_loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert abs(metrics["grammar_loss"] - np.log(2)) < 0.5
    assert all(jnp.abs(x).max() > 0 for x in jax.tree.leaves(grads["grammar_head"]))

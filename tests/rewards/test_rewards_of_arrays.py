"""Rewards inside the step: equal to the metrics of the same name, or to numbers by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import policy_toy as toy
import pytest

from capjax.errors import UserError
from capjax.metrics import clipscore
from capjax.models.grammar_head import GrammarHead, text_features
from capjax.rewards import clip_similarity, grammar, length, repetition, self_retrieval
from capjax.rewards.captions import of_tokens
from capjax.rewards.weighted import Rewards
from capjax.tasks.grammar import Task as GrammarTask

TOKENIZER = toy.Tokenizer()
ROWS = np.array(toy.captions()[:14], np.int32).reshape(2, 7, 4)
IMAGES = toy.batch(2)[0]["image"]


@pytest.fixture(scope="module")
def encoder():
    """An encoder with a judge of grammar."""
    model = toy.Encoder()
    return model, jax.jit(GrammarTask(model=model).init)(jax.random.key(1))


@pytest.fixture(autouse=True)
def run(monkeypatch, encoder):
    """What the run directory "encoder" holds."""
    model, params = encoder
    opened = types.SimpleNamespace(
        model=model, params=dict(params), tokenizer=toy.Tokenizer(model.max_length)
    )
    monkeypatch.setattr("capjax.runs.open_run", lambda directory: opened)
    return opened


def captions(rows=ROWS, told=None):
    return of_tokens(jnp.asarray(rows), toy.SPECIAL, jnp.arange(len(rows)), told or {})


def texts(rows=ROWS):
    return [[TOKENIZER.decode(row[1:]) for row in group] for group in rows]


def score(section, rows=ROWS, references=None):
    """[b,K] of one reward as the step computes it, strings on the host included."""
    rewards = Rewards({"r": section}, None, TOKENIZER)
    batch = {"image": IMAGES, **rewards.look_up(["a", "b"], references or [["red"], ["blue"]])}
    told = rewards.tell(["a", "b"], references or [[], []], texts(rows))
    rows_told = {k.removeprefix("rows/"): v for k, v in told.items() if k.startswith("rows/")}
    prepared = rewards.prepare(rewards.arrays, batch)
    values = rewards.score(rewards.arrays, prepared, captions(rows, rows_told), told)
    return np.asarray(values["r"])


def embedded(run, strings, prefix=""):
    rows = [run.tokenizer.row(run.tokenizer.ids(f"{prefix} {x}")) for x in strings]
    return run.model.apply({"params": run.params}, np.array(rows), method="embed_text")


@pytest.mark.parametrize("prefix", ["", "blue"])
@pytest.mark.parametrize("retokenise", [False, True])
def test_clip_similarity_is_the_metric(run, prefix, retokenise):
    """CLIP-S and RefCLIP-S, of captions as they were drawn and by way of the host alike."""
    section = {"name": "capjax.rewards.clip_similarity", "run": "encoder"}
    section |= {"prefix": prefix, "retokenise": retokenise}
    references = [["red blue", "red"], ["blue blue"]]
    found = score(section)
    with_references = score(section | {"references": 2}, references=references)
    pictures = run.model.apply({"params": run.params}, IMAGES, method="embed_image")
    for i, group in enumerate(texts()):
        own = np.array(embedded(run, group, prefix))
        repeated = np.repeat(pictures[i : i + 1], len(group), 0)
        known = [np.asarray(embedded(run, references[i], prefix))] * len(group)
        expected = clipscore.clip_score(repeated, own)
        both = clipscore.ref_clip_score(repeated, own, known)
        some = np.array([bool(text) for text in group])  # a caption without a word is worth 0
        np.testing.assert_allclose(found[i], expected * some, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(with_references[i], both * some, rtol=1e-5, atol=1e-6)


def test_reference_weight_of_the_clip_reward_paper():
    """CLIP-S 0.75 and a cosine of 0.9: 1.125 with 2.5 of it, 0.81818 as in the metric."""
    mean = clip_similarity.harmonic_mean
    np.testing.assert_allclose(mean(jnp.float32(0.75), 2.5 * 0.9), 1.125, rtol=1e-6)
    np.testing.assert_allclose(mean(jnp.float32(0.75), 0.9), 0.81818, rtol=1e-5)
    assert mean(jnp.float32(0), jnp.float32(0)) == 0


def retrieve(scores, **more):
    """Texts whose cosines with the pictures are these numbers [K,B]."""
    scores = jnp.array(scores, jnp.float32)
    images, own = jnp.eye(scores.shape[1]), jnp.arange(len(scores))
    return self_retrieval.retrieval(scores[:, None], images, own, 1.0, **more)[:, 0]


def test_self_retrieval_by_hand():
    """The values of DiscriTune's and NDLB's losses."""
    np.testing.assert_allclose(retrieve([[0.3, 0.1], [0.2, 0.4]]), [-0.598139] * 2, rtol=1e-5)
    np.testing.assert_allclose(retrieve([[2, 0], [1, 3]]), [-0.126928] * 2, rtol=1e-5)
    np.testing.assert_allclose(retrieve([[0, 1], [1, 3]])[0], -1.313262, rtol=1e-5)
    hits = retrieve([[0, 1], [0.5, 0.5]], measure="accuracy")
    np.testing.assert_array_equal(hits, [0, 1])  # a tie is a hit
    np.testing.assert_allclose(retrieve([[2, 0], [1, 3]], measure="similarity"), [2, 3])


def test_hard_negatives_join_the_row_and_twins_leave_it():
    hard = jnp.array([[[0.6, 0.8]], [[0.0, 1.0]]])  # the second picture's neighbour is itself
    found = retrieve([[2.0, 0.0], [1.0, 3.0]], hard=hard)
    np.testing.assert_allclose(found[0], 2 - np.log(np.exp(2) + 1 + np.exp(1.2)), rtol=1e-5)
    np.testing.assert_allclose(found[1], -0.126928, rtol=1e-5)
    twins = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    text = jnp.array([[[2.0, 0.0]]])
    alone = self_retrieval.retrieval(text, twins, jnp.arange(1), 1.0)
    np.testing.assert_allclose(alone, 2 - np.log(np.exp(2) + 1), rtol=1e-5)


def test_negatives_from_a_file(run, tmp_path):
    pictures = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    path = str(tmp_path / "near.npz")
    self_retrieval.write_negatives(path, list("abcd"), pictures, 2, block=3)
    section = {"name": "capjax.rewards.self_retrieval", "run": "encoder", "negatives": path}
    rewards = Rewards({"r": section | {"hard": 1}}, None, TOKENIZER)
    near = rewards.look_up(["a", "c"], [[], []])["look_up/r/negatives"]
    np.testing.assert_array_equal(near[:, 0], pictures[[1, 1]])
    assert score(section | {"hard": 2}).shape == (2, 7)
    with pytest.raises(UserError, match="lacks the picture 'z'"):
        rewards.look_up(["z"], [[]])
    for more, message in (
        ({"hard": 3}, "has 2 neighbours"),
        ({"hard": 0}, "give both"),
        ({"hard": 1, "negatives": "no.npz"}, r"no file of neighbours 'no\.npz'"),
        ({"hard": 1, "measure": "rank"}, "measure='rank' must be one of"),
    ):
        with pytest.raises(UserError, match=message):
            Rewards({"r": section | more}, None, TOKENIZER)


def test_self_retrieval_needs_a_distractor():
    section = {"name": "capjax.rewards.self_retrieval", "run": "encoder"}
    rewards = Rewards({"r": section}, None, TOKENIZER)
    with pytest.raises(UserError, match="no distractor in a batch of 1"):
        rewards.prepare(rewards.arrays, {"image": IMAGES[:1]})


def test_grammar_is_the_head_on_the_text_feature(run):
    found = score({"name": "capjax.rewards.grammar", "run": "encoder"})
    rows = np.array([run.tokenizer.row(run.tokenizer.ids(x)) for x in texts()[1]])
    words = run.params["words"]["embedding"][rows]
    read = run.model.special_tokens.until_end(rows)[..., None]
    features = text_features(run.model, run.params, rows)
    np.testing.assert_allclose(features, (words * read).sum(1), rtol=1e-6)
    logits = GrammarHead().apply({"params": run.params["grammar_head"]}, features)
    np.testing.assert_allclose(found[1], jax.nn.softmax(logits)[:, 1], rtol=1e-5)
    del run.params["grammar_head"]
    with pytest.raises(UserError, match="has no grammar_head"):
        grammar.Reward(run="encoder", reward="r", tokenizer=TOKENIZER)


def test_length_and_repetition_by_hand():
    rows = [[1, 4, 4, 4, 4, 4, 2, 0], [1, 4, 5, 4, 5, 2, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0]]
    written = captions(np.array([rows]))
    bigrams = repetition.Reward(n=2).score(None, None, written)
    np.testing.assert_allclose(bigrams, [[-3 / 4, -1 / 3, 0]], rtol=1e-6)
    far = length.Reward(least=2, most=3).score(None, None, written)
    np.testing.assert_array_equal(far, [[-2, -1, -2]])
    with pytest.raises(UserError, match="no range of lengths"):
        length.Reward(least=3, most=2)


def test_weighted_sum():
    sections = {
        "long": {"name": "capjax.rewards.length", "least": 3, "weight": 0.5},
        "again": {"name": "capjax.rewards.repetition", "n": 1, "weight": 2.0},
    }
    rewards = Rewards(sections, None, TOKENIZER)
    values = rewards.score({}, {}, captions(), {})
    assert not rewards.reads_texts
    np.testing.assert_allclose(values[""], 0.5 * values["long"] + 2 * values["again"], rtol=1e-6)

"""Contrastive and matching losses with hard negatives: what is drawn, what is learnt, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from capjax.errors import UserError
from capjax.models import blip_matching, dual_encoder
from capjax.parallel.mesh import batch_sharding, make_mesh, put_batch
from capjax.parallel.sharding import parameter_shardings
from capjax.special_tokens import BOS_ID, EOS_ID
from capjax.tasks.matching import Task, hard_negatives, pairs
from capjax.tasks.same_captions import caption_numbers
from capjax.train_step import loss_and_grads

VOCABULARY, LENGTH, SIDE, BATCH, STEPS = 16, 6, 8, 16, 60
COLOURS = np.array([[220, 40, 40], [40, 200, 40], [40, 40, 220], [230, 230, 40]], np.uint8)


@pytest.fixture(scope="module")
def model():
    small = dict(image_layers=1, text_layers=1, patch_size=4, image_width=32, text_width=32)
    small |= dict(image_heads=2, text_heads=2, image_mlp_dim=64, text_mlp_dim=64, max_positions=8)
    return blip_matching.Model(VOCABULARY, LENGTH, SIDE, "tiny", small, embedding_dim=16)


@pytest.fixture(scope="module")
def task(model):
    return Task(model=model, ignore_duplicates=True)


@pytest.fixture(scope="module")
def params(task):
    """Drawn, which is quicker than compiling `init`, and as wide as so narrow a model needs."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        first = {"scale": 1.0, "bias": 0.0, "logit_scale": np.log(1 / 0.07)}.get(path[-1].key)
        values = rng.normal(0, 0.15, leaf.shape) if first is None else np.full(leaf.shape, first)
        return jnp.asarray(values, jnp.float32)

    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def step(task):
    """Loss, metrics and gradients, compiled once for each set of devices."""
    return jax.jit(lambda params, batch, rng: loss_and_grads(task, params, batch, rng))


def batch_of(rng):
    """Pictures of one of four colours, with a little noise, and a caption of two words for each."""
    colour = rng.integers(0, 4, BATCH)
    image = np.broadcast_to(COLOURS[colour][:, None, None], (BATCH, SIDE, SIDE, 3))
    tokens = np.zeros((BATCH, LENGTH), np.int32)
    tokens[:, 0], tokens[:, 1], tokens[:, 2], tokens[:, 3] = BOS_ID, 9, 4 + colour, EOS_ID
    return {"image": image + rng.integers(0, 25, image.shape).astype(np.uint8), "tokens": tokens}


def test_wrong_ones_follow_the_softmax():
    """Of many draws: never an equal caption, and each other one as often as its share says."""
    logits = jnp.array(np.random.default_rng(0).normal(0, 1.5, (5, 5)), jnp.float32)
    captions = jnp.array([7, 8, 7, 9, 6])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.jit(jax.vmap(lambda key: hard_negatives(key, logits, captions)))
    texts, images, there = draw(keys)
    assert np.all(there)
    other = np.array(captions)[:, None] != np.array(captions)
    for drawn, seen in ((texts, np.array(logits)), (images, np.array(logits).T)):
        share = np.where(other, np.exp(seen), 0)
        share /= share.sum(1, keepdims=True)
        counts = np.stack([np.bincount(drawn[:, row], minlength=5) for row in range(5)])
        assert counts[~other].sum() == 0
        found, expected = counts[other], len(keys) * share[other]
        # 16 free shares (18 of which two rows of 3 and three of 4): 40 is exceeded once in 1,000.
        assert ((found - expected) ** 2 / expected).sum() < 40
        assert ((found - len(keys) / 4) ** 2 / expected).sum() > 1000  # and not an even draw


def test_a_batch_of_one_caption_has_no_wrong_ones():
    _, _, there = hard_negatives(jax.random.key(0), jnp.ones((3, 3)), jnp.zeros(3, jnp.int32))
    assert not there.any()
    _, _, there = hard_negatives(jax.random.key(0), jnp.ones((3, 3)), jnp.array([1, 1, 2]))
    assert there.all()


def test_pairs_are_the_pair_a_wrong_text_and_a_wrong_picture():
    context, tokens = np.arange(3)[:, None, None], 10 * np.arange(3)[:, None]
    text, image, there = np.array([1, 2, 0]), np.array([2, 0, 1]), np.array([True, False, True])
    given = map(jnp.array, (context, tokens, text, image, there))
    contexts, texts, is_match, counted = pairs(*given)
    assert contexts[:, 0, 0].tolist() == [0, 0, 2, 1, 1, 0, 2, 2, 1]
    assert texts[:, 0].tolist() == [0, 10, 0, 10, 20, 10, 20, 0, 20]
    assert is_match.tolist() == [1, 0, 0] * 3
    assert counted.tolist() == [1, 1, 1, 1, 0, 0, 1, 1, 1]


def test_losses_are_those_of_their_parts(model, params, step):
    """The pairs in another order, with the wrong ones that the same key draws."""
    batch, key = batch_of(np.random.default_rng(3)), jax.random.key(4)
    loss, metrics, _ = step(params, batch, key)

    @jax.jit
    def by_hand(params, image, tokens):
        pictures, texts, _ = model.apply({"params": params}, image, tokens)
        logits = jnp.exp(params["logit_scale"]) * pictures @ texts.T
        drawn = hard_negatives(jax.random.split(key, 3)[2], logits, caption_numbers(tokens))
        states = model.apply({"params": params}, image, method="encode_image").context
        own = jnp.arange(BATCH)
        states = states[jnp.concatenate([own, own, drawn[1]])]
        tokens = tokens[jnp.concatenate([own, drawn[0], own])]
        return model.apply({"params": params}, states, tokens, method="match"), drawn[2]

    logits, there = by_hand(params, batch["image"], batch["tokens"])
    assert there.all()
    assert 0 < metrics["duplicate_captions"] < BATCH
    wanted = np.arange(3 * BATCH) < BATCH
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, wanted.astype(int))
    np.testing.assert_allclose(metrics["matching_loss"], losses.mean(), rtol=1e-5)
    right = np.mean((logits[:, 1] > logits[:, 0]) == wanted)
    np.testing.assert_allclose(metrics["matching_accuracy"], right, rtol=1e-6)
    np.testing.assert_allclose(
        loss, metrics["contrastive_loss"] + metrics["matching_loss"], rtol=1e-6
    )


def test_eight_devices_equal_one(task, params, step):
    batch, key = batch_of(np.random.default_rng(5)), jax.random.key(1)
    loss, metrics, grads = step(params, batch, key)
    mesh = make_mesh(dict(data=2, fsdp=4))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, parameter_shardings(((".*", "fsdp"),), params, mesh))
        rows = put_batch(batch, batch_sharding(mesh))
        got_loss, got, got_grads = jax.device_get(step(placed, rows, key))
    np.testing.assert_allclose(got_loss, loss, rtol=1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * largest), grads, got_grads
    )


def test_matching_is_learnt_from_pairs_and_not_from_shuffled_ones(task, params, step):
    """As many updates on the same pictures, whose captions are another's, teach nothing."""
    tx = optax.adam(3e-3)

    @jax.jit
    def update(params, state, grads):
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state

    def accuracy(shuffled):
        rng, p, state = np.random.default_rng(0), params, tx.init(params)
        found = []
        for number in range(STEPS):
            batch = batch_of(rng)
            if shuffled:
                batch["tokens"] = rng.permutation(batch["tokens"])
            _, metrics, grads = step(p, batch, jax.random.key(number))
            p, state = update(p, state, grads)
            found.append(float(metrics["matching_accuracy"]))
        return np.mean(found[:10]), np.mean(found[-20:])

    before, learnt = accuracy(shuffled=False)
    _, from_shuffled = accuracy(shuffled=True)
    assert before < 0.75
    assert learnt > 0.9
    assert from_shuffled < 0.75


def test_a_model_without_a_matching_head_is_refused():
    with pytest.raises(UserError, match=r"capjax\.models\.dual_encoder has no matching head"):
        Task(model=dual_encoder.Model(VOCABULARY, LENGTH, SIDE))

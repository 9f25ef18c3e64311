"""Evaluators give the same values whatever the batch, its filling and the devices."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from capjax.data.scenes import Source
from capjax.data.tokenizer import train
from capjax.errors import UserError
from capjax.evals import guidance, retrieval
from capjax.models.coca import Model
from capjax.models.init import init
from capjax.parallel.mesh import make_mesh

DATA = dict(name="capjax.data.scenes", size=13, image_size=32, max_objects=1, captions="short")


@pytest.fixture(scope="module")
def tokenizer():
    source = Source(**{k: v for k, v in DATA.items() if k != "name"})
    return train([c for i in range(len(source)) for c in source.captions(i)], 64, 12)


@pytest.fixture(scope="module")
def model(tokenizer):
    return Model(tokenizer.vocab_size, tokenizer.max_length, 32)


@pytest.fixture(scope="module")
def params(model):
    """Random, with larger weights than at the start: captions and embeddings must differ."""
    params = jax.jit(lambda rng: init(model, rng))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def on_mesh(params):
    mesh = make_mesh({"data": 8})
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec()))


def test_guidance_sweep_does_not_depend_on_batch_or_devices(model, tokenizer, params):
    kwargs = dict(model=model, tokenizer=tokenizer, data=DATA, guidance_scales=(1.0, 2.5))
    whole = guidance.Evaluator(batch_size=13, **kwargs).run(params)
    parts = guidance.Evaluator(batch_size=8, **kwargs).run(params)
    spread = guidance.Evaluator(batch_size=8, **kwargs).run(on_mesh(params))
    assert whole.keys() == parts.keys() == spread.keys()
    assert {"cider@1", "own_recall_at_1@2.5", "own_clipscore@1", "words@1"} <= whole.keys()
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, abs=1e-5), name
        assert spread[name] == pytest.approx(value, abs=1e-5), name


def test_guidance_sweep_scores_against_an_independent_count(model, tokenizer, params):
    sweep = guidance.Evaluator(
        model=model, tokenizer=tokenizer, data=DATA, guidance_scales=(1.0,), limit=9, show=4
    ).sweep(params, progress=False)
    assert len(sweep.keys) == len(sweep.captions[1.0]) == 9
    assert len(sweep.pictures) == 4
    row = sweep.rows[0]
    texts = [caption.text for caption in sweep.captions[1.0]]
    assert row["words"] == pytest.approx(np.mean([len(text.split()) for text in texts]))
    assert row["distinct_captions"] == len(set(texts))
    assert row["truncated"] == np.mean([caption.truncated for caption in sweep.captions[1.0]])
    # Recall by hand, from embeddings computed one by one.
    embed = jax.jit(lambda x, method: model.apply({"params": params}, x, method=method),
                    static_argnums=1)  # fmt: skip
    source = Source(**{k: v for k, v in DATA.items() if k != "name"})
    images = np.stack([embed(source[i]["image"][None], "embed_image")[0] for i in range(9)])
    rows = [tokenizer.encode(t, truncate=True) if t.strip() else None for t in texts]
    known = [i for i, r in enumerate(rows) if r is not None]
    captions = np.stack([embed(rows[i][None], "embed_text")[0] for i in known])
    similarity = captions @ images.T
    first = [
        similarity[n, i] > np.delete(similarity[n], i).max() + 1e-9 for n, i in enumerate(known)
    ]
    got = sweep.per_picture[1.0]["own_recall_at_1"]
    np.testing.assert_array_equal(got[known], np.array(first, float))
    clip = 2.5 * np.maximum(np.sum(captions * images[known], -1), 0)
    np.testing.assert_allclose(sweep.per_picture[1.0]["own_clipscore"][known], clip, atol=1e-5)


def test_retrieval_does_not_depend_on_batch_or_devices(model, tokenizer, params):
    kwargs = dict(model=model, tokenizer=tokenizer, data=dict(DATA, captions_per_image=2))
    whole = retrieval.Evaluator(batch_size=13, **kwargs).run(params)
    assert retrieval.Evaluator(batch_size=8, **kwargs).run(on_mesh(params)) == whole
    assert whole["image_to_text_recall_at_10"] >= whole["image_to_text_recall_at_1"]


def test_text_prefix_is_part_of_every_embedded_text(model, tokenizer, params):
    kwargs = dict(model=model, tokenizer=tokenizer, data=DATA, guidance_scales=(1.0,))
    plain = guidance.Evaluator(batch_size=8, **kwargs).run(params)
    prefixed = guidance.Evaluator(batch_size=8, text_prefix="a red ", **kwargs).run(params)
    assert prefixed["own_clipscore@1"] != plain["own_clipscore@1"]
    assert prefixed["cider@1"] == plain["cider@1"]


def test_misuse_is_named(model, tokenizer):
    build = lambda **kwargs: guidance.Evaluator(  # noqa: E731
        model=model, tokenizer=tokenizer, data=DATA, **kwargs
    )
    with pytest.raises(UserError, match="guidance_scales is empty"):
        build(guidance_scales=())
    with pytest.raises(UserError, match=r"\(gamma\) is -1"):
        build(guidance_scales=(1.0, -1.0))
    with pytest.raises(UserError, match="nowhere"):
        build(encoder="nowhere")

"""Prefix conditioning: its world, its two text diagnostics and its claims, on untrained models."""

import collections
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax import config as configs
from capjax.data.scenes.parse import mentions_attribute
from capjax.data.tokenizer import train
from capjax.errors import UserError
from capjax.models import clip
from capjax.reproduce import Setting
from capjax.runs import Run, make_model, make_task
from capjax.train_step import rng_for
from experiments.prefix_conditioning import claims, diagnostics
from experiments.prefix_conditioning.worlds import (
    CLASSES,
    CONTEXTS,
    SHAPES,
    STYLES,
    Source,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CONFIG = ROOT / claims.CONFIG


@pytest.fixture(scope="module")
def tokenizer():
    source = Source("textured", "train", 300, shapes=SHAPES)
    return train([text for i in range(300) for text in source.captions(i)], 320, 20)


def run_of(tokenizer, **arguments):
    """A run of the config that has not been trained."""
    config = configs.load(f"{CONFIG}:" + ",".join(f"{k}={v}" for k, v in arguments.items()))
    with config.unlocked():
        for section in config.evals.values():
            section.data.size = 32
        sizes = dict(image_layers=1, image_width=32, text_width=32, embedding_dim=16)
        config.model.overrides.update(sizes)
    model = make_model(config, tokenizer)
    params = jax.jit(make_task(config, model).init)(rng_for(config.seed, "init"))
    return Run(config, tokenizer, model, params, 0, pathlib.Path())


@pytest.fixture(scope="module")
def told(tokenizer):
    return run_of(tokenizer)


def test_styles_share_nothing_that_they_draw_with():
    for name in ("colours", "textures", "backgrounds"):
        values = [value for style in STYLES.values() for value in style[name]]
        assert len(set(values)) == len(values)
    assert len(CLASSES) == 12
    assert len(SHAPES) == 24
    for style, fields in STYLES.items():
        source = Source(style, "test", 60)
        (looks,) = zip(*(source.scenes.graph(i).objects for i in range(60)), strict=True)
        assert {look.texture for look in looks} == set(fields["textures"])
        assert {look.colour for look in looks} <= set(fields["colours"])
        assert {look.shape for look in looks} <= set(CLASSES)
        assert any(look.angle for look in looks) == (style != "flat")


def test_records_are_labelled_and_the_same_each_time():
    source, again = (Source("textured", "train", 200, shapes=SHAPES) for _ in range(2))
    records = [source[i] for i in range(200)]
    assert {record["label"] for record in records} > set(CLASSES)
    assert {record["class_id"] for record in records} == {-1}
    for record, i in ((records[7], 7), (records[150], 150)):
        assert np.array_equal(record["image"], again[i]["image"])
        assert record["image"].shape == (32, 32, 3)
        assert record["captions"] == again.captions(i)
    captions = [caption for record in records for caption in record["captions"]]
    assert np.mean([mentions_attribute(caption) for caption in captions]) > 0.8
    # Free captions do not place the shape always at the same word.
    places = {
        c.split().index(r["label"])
        for r in records
        for c in r["captions"]
        if r["label"] in c.split()
    }
    assert len(places) > 5


def test_pictures_of_two_splits_or_styles_are_different_scenes():
    def scenes(style, split):
        source = Source(style, split, 100)
        return {(o.shape, o.x, o.y) for i in range(100) for o in source.scenes.graph(i).objects}

    sets = [scenes("outlined", "test"), scenes("textured", "test"), scenes("textured", "train")]
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]


def test_an_unknown_style_is_named():
    with pytest.raises(UserError, match="unknown style 'clean': choose one of flat, textured"):
        Source("clean", "train", 10)


def test_the_mixture_numbers_the_prefixes_in_their_order():
    """A batch's `source` is a place in the model's prefixes, so that the names must agree."""
    for name in ("shapes.py", "imagenet21k_cc12m.py"):
        config = configs.load(str(CONFIG.parent / name))
        assert config.model.prefixes == tuple(sorted(config.data.train.sources))
        assert config.model.test_prefix == "cap"
        plain = configs.load(f"{CONFIG.parent / name}:prefix=False")
        assert (plain.model.prefixes, plain.model.test_prefix) == ((), "")
        changed = configs.differences(plain, config)
        assert {line.split(":")[0] for line in changed} == {"model.prefixes", "model.test_prefix"}


def test_a_prefix_adds_a_position_and_moves_the_end_by_one():
    def shapes_of(**fields):
        model = clip.published("ViT-B/32", **fields)
        tokens = jax.ShapeDtypeStruct((1, 77), jnp.int32)
        image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8)
        return jax.eval_shape(model.init, jax.random.key(0), image, tokens)["params"]["text_tower"]

    assert shapes_of()["positions"].shape == (77, 512)
    tower = shapes_of(prefixes=("cap", "cls"), test_prefix="cap")
    assert tower["positions"].shape == (78, 512)
    assert tower["prefix_cap"].shape == tower["prefix_cls"].shape == (512,)


def test_the_feature_is_that_of_the_end_and_not_of_the_token_before(told):
    """Read without the shift, the feature would be that of the last word."""
    tokens = told.tokenizer.encode_batch(["here we see a red circle"])
    end = int(np.argmax(tokens[0] == told.model.special_tokens.eos))

    def feature(model, place):
        states = model.text_tower(tokens, False, "cap")
        return clip.unit(model.text_projection(states[:, place]))

    apply = functools.partial(told.model.apply, {"params": told.params}, method=feature)
    features = diagnostics.text_features(
        told.model, told.params, told.tokenizer, ["here we see a red circle"], "cap"
    )
    np.testing.assert_allclose(features, apply(end), atol=1e-5)
    assert np.abs(features - apply(end - 1)).max() > 1e-2


def test_attention_weights_are_those_of_the_block(told):
    """Applied to the block's own values, they give what its attention gave."""
    tokens = told.tokenizer.encode_batch(["a red circle", "here we see a big blue moon"])
    for model in (told.model, told.model.clone(test_prefix="cls")):
        weights = np.asarray(diagnostics.last_attention(model, told.params, tokens))
        assert weights.shape == (2, 2, 21, 21)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        assert not np.any(weights[..., np.triu_indices(21, 1)[0], np.triu_indices(21, 1)[1]])
        _, state = model.apply(
            {"params": told.params},
            tokens,
            method="embed_text",
            capture_intermediates=True,
            mutable=["intermediates"],
        )
        block = state["intermediates"]["text_tower"]["stack"]["blocks_1"]["self_attention"]
        out = told.params["text_tower"]["stack"]["blocks_1"]["self_attention"]["out"]
        attended = np.einsum("bhts,bshk->bthk", weights, block["value"]["__call__"][0])
        ours = np.einsum("bthk,hkd->btd", attended, out["kernel"]) + out["bias"]
        np.testing.assert_allclose(ours, block["__call__"][0], atol=1e-5)


def test_the_end_s_attention_is_split_between_name_context_and_the_rest(told):
    sentences = ["here we see a red circle", "a moon on the left"]
    tokens = told.tokenizer.encode_batch(sentences)
    rows = diagnostics.end_attention(told.model, told.params, tokens)
    whole = np.asarray(diagnostics.last_attention(told.model, told.params, tokens)).mean(1)
    for row, weights, ids in zip(rows, whole, tokens, strict=True):
        end = int(np.argmax(ids == told.model.special_tokens.eos))
        np.testing.assert_allclose(row, weights[1 + end, 1:], rtol=1e-6)  # after the prefix
        assert row.sum() + weights[1 + end, 0] == pytest.approx(1, rel=1e-5)
        assert row[end] > 0
        assert not row[end + 1 :].any()
    args = (told.model, told.params, told.tokenizer, ["moon"], ["a {} on the left"], "cap")
    shares = diagnostics.attention_to_context(*args)
    assert shares["name"] == pytest.approx(rows[1, 2], rel=1e-5)
    assert shares["context"] == pytest.approx(rows[1, 1] + rows[1, 3:6].sum(), rel=1e-5)


def test_words_of_a_name_are_told_from_the_others():
    tokenizer = train([f"a {word} bus here" for word in ("school", "red")] * 20, 40, 24)
    named, others = diagnostics.word_masks(tokenizer, "a school bus here", "school bus")
    row = tokenizer.encode("a school bus here")
    assert tokenizer.decode(row[named]) == "school bus"
    assert tokenizer.decode(row[others]) == "a here"
    assert not np.any(named & others)
    assert np.sum(named | others) == len(tokenizer.ids("a school bus here"))
    with pytest.raises(UserError, match="'a bus here' does not hold the words 'school bus'"):
        diagnostics.word_masks(tokenizer, "a bus here", "school bus")


def test_variance_is_within_classes():
    features = np.array([[0.0, 1.0], [0.0, 3.0], [5.0, 0.0], [5.0, 0.0]])
    assert diagnostics.within_class_variance(features, 2) == pytest.approx(0.5)
    assert diagnostics.within_class_variance(features[[0, 0, 3, 3]], 2) == 0
    np.testing.assert_allclose(
        diagnostics.cosines(features[:1], np.array([[2.0, 2.0]])), 0.5**0.5, rtol=1e-12
    )


def test_sentences_are_about_each_class_in_each_context(tokenizer):
    assert len(set(claims.SENTENCES)) == len(CLASSES) * len(CONTEXTS) == 432
    for name, sentence in zip(np.repeat(CLASSES, len(CONTEXTS)), claims.SENTENCES, strict=True):
        assert name in sentence.split()
        assert len(tokenizer.ids(sentence)) <= 18
    drawn = claims.said_by(0).reshape(len(CLASSES), -1)
    assert np.all(drawn.sum(1) == len(CONTEXTS) // 2)
    assert not np.array_equal(drawn, claims.said_by(1).reshape(len(CLASSES), -1))


def test_a_prefix_that_the_run_lacks_is_named(told):
    with pytest.raises(UserError, match=r"test_prefix='web' is not among prefixes=.'cap', 'cls'."):
        claims.features(told, "web")
    plain = told.model.clone(prefixes=(), test_prefix="")
    with pytest.raises(UserError, match=r"test_prefix='cap' is not among prefixes=\(\)"):
        diagnostics.text_features(plain, told.params, told.tokenizer, ["a moon"], "cap")


@pytest.fixture
def untrained(monkeypatch, told, tokenizer):
    """Claims about models at their start; returns the findings by name."""
    monkeypatch.setattr(claims, "SEEDS", (0,))
    runs = {True: told, False: run_of(tokenizer, prefix=False)}
    monkeypatch.setattr(claims, "trained", lambda workdir, seed, prefix=True: runs[prefix])

    def findings():
        setting = Setting(pathlib.Path(), "")
        return {f.name: f for claim in claims.SCALES["small"] for f in claim(setting)}

    return findings


def test_claims_tell_what_training_did_from_what_prefixes_do_anyway(untrained):
    found = untrained()
    assert collections.Counter(f.holds is None for f in found.values()) == {False: 8, True: 2}
    assert found["ablation_tied_prefixes"].holds
    assert found["ablation_probe_with_one_prefix"].holds
    cosine = found["cosine_between_prefixes"].measured
    assert cosine["cosine"] == pytest.approx(cosine["before_training"], abs=1e-5)
    # Vectors drawn at random tell a probe enough: what the probe's claim shows is its ablation.
    assert found["probe_with_own_prefixes"].holds
    # Nothing has been learned: chance is 1 in 12.
    for style in ("third_style", "cap_style"):
        measured = found[f"{style}_over_no_prefix"].measured
        assert max(measured["with_cap"] + measured["without"]) < 0.4


def test_a_gain_is_the_mean_over_seeds_and_pictures():
    right, wrong = np.ones((2, 30)), np.zeros((2, 30))
    right[0, :15] = 0
    found = claims.gain(right, wrong)
    assert found["gain"] == 0.75
    assert 0.5 < found["low"] < 0.75 < found["high"] < 1

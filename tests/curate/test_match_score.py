"""A matching model of ours as a stage: its numbers, what is cut, and what is refused."""

import jax
import numpy as np
import pytest

from capjax import config as config_lib
from capjax import runs
from capjax.checkpoint import Checkpoints
from capjax.curate.calls import call_batch
from capjax.curate.stage import check_declared
from capjax.curate.stages import matching
from capjax.curate.stages.captioning import to_squares
from capjax.curate.stages.choosing import rank
from capjax.curate.stages.matching import MatchScore
from capjax.data.scenes import Source
from capjax.decode import bulk
from capjax.errors import BadRecord, UserError
from capjax.evals import match_scorer
from capjax.evals.encoder import Encoder
from capjax.evals.match_scorer import MatchScorer
from capjax.models.init import init

SCENES = dict(size=5, image_size=32, max_objects=1, captions="short", captions_per_image=3)
LENGTH, BATCH = 35, 4


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """What is compiled for one device, quickly, serves the scorer beside the stage, too."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "on_all_devices", lambda params: params)
        patch.setattr(bulk, "whole_batch", lambda size, pictures: size)
        yield
    jax.config.update("jax_disable_most_optimizations", before)


def run_of(directory, name, **model):
    """A run with random weights."""
    config = config_lib.base()
    config.model = dict(name=name, **model)
    config.data.train = dict(name="capjax.data.scenes", **SCENES)
    config.data.image_size = 16
    config.tokenizer.vocab_size, config.tokenizer.max_length = 64, LENGTH
    config = config_lib.as_config(config)
    tokenizer = runs.prepare(directory, config, Source(**SCENES), started=False)
    made = runs.make_model(config, tokenizer)
    rng = np.random.default_rng(0)

    def draw(path, x):
        return rng.normal(path[-1].key == "scale", 0.3, x.shape).astype(x.dtype)

    shapes = jax.eval_shape(lambda: init(made, jax.random.key(0)))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    with Checkpoints(directory / runs.CHECKPOINTS, writer=True) as checkpoints:
        host = {"tokenizer": tokenizer.fingerprint}
        checkpoints.save_params(1, jax.device_put(params), host)
    return directory


@pytest.fixture(scope="module")
def matcher(tmp_path_factory):
    small = dict(image_layers=1, text_layers=1, image_width=16, text_width=16)
    small |= dict(image_mlp_dim=32, text_mlp_dim=32)
    return run_of(
        tmp_path_factory.mktemp("run") / "matcher",
        "capjax.models.blip_matching",
        variant="tiny",
        overrides=small,
        embedding_dim=8,
    )


@pytest.fixture(scope="module")
def opened(matcher):
    return runs.open_run(matcher)


@pytest.fixture(scope="module")
def encoder(opened):
    return Encoder(opened.model, opened.params, opened.tokenizer, BATCH)


@pytest.fixture(scope="module")
def rows():
    return [Source(**SCENES)[i] for i in range(SCENES["size"])]


@pytest.fixture(scope="module")
def squares(rows, opened):
    return to_squares([row["image"] for row in rows], opened.model, "squash")


def started(matcher, encoder, **fields):
    """The stage, without opening the run again."""
    stage = MatchScore(matcher, batch_size=BATCH, **fields)
    check_declared(stage)
    stage._encoder, stage._resize = encoder, "squash"
    stage._scorer = MatchScorer(encoder, stage.params["mode"])
    return stage


def test_scores_are_the_models(matcher, opened, encoder, rows, squares):
    """More captions than a batch holds, for more pictures than that; one has none."""
    one_each = [row["captions"][0] for row in rows]
    captions = [one_each[:3], one_each[2:4], [], one_each[1:4], one_each[4:]]
    given = [
        {"key": row["key"], "image": row["image"], "captions": own}
        for row, own in zip(rows, captions, strict=True)
    ]
    flat = [text for own in captions for text in own]
    owner = np.repeat(np.arange(5), [len(own) for own in captions])
    images, texts = encoder.images(squares), encoder.texts(flat)
    apply = jax.jit(lambda p, *x: opened.model.apply({"params": p}, *x))
    logits = apply(opened.params, squares[owner], encoder.rows(flat))[2]
    expected = {
        "itm": np.exp(logits[:, 1]) / np.exp(logits).sum(1),
        "itc": np.sum(images[owner] * texts, 1),
    }
    for mode, numbers in expected.items():
        stage = started(matcher, encoder, captions="captions", several=True, mode=mode)
        told = [called.results[0] for called in call_batch(stage, given)]
        assert [len(one["match_score"]) for one in told] == [3, 2, 0, 3, 1]
        assert [one["match_score_cut"] for one in told] == [0] * 5
        found = [score for one in told for score in one["match_score"]]
        np.testing.assert_allclose(found, numbers, atol=2e-6)
        assert np.ptp(found) > 0.01
        # Of one caption each, by a stage that encodes each picture with another batch.
        alone = started(matcher, encoder, mode=mode, output="score")
        one = alone.batch([{**given[3], "caption": captions[3][1]}])
        assert one == [
            {"score": pytest.approx(told[3]["match_score"][1], abs=2e-6), "score_cut": 0}
        ]


def test_a_picture_is_encoded_once(encoder, rows, squares, monkeypatch):
    calls = []
    states = match_scorer._states

    def counted(model, params, images):
        calls.append(len(images))
        return states(model, params, images)

    monkeypatch.setattr(match_scorer, "_states", counted)
    scorer = MatchScorer(encoder)
    scorer.score(squares, [rows[0]["captions"][0]] * 20, np.arange(20) % 4)
    assert calls == [BATCH]


def test_a_long_caption_is_scored_cut_and_counted(matcher, encoder, rows):
    """50 tokens as their first 35, of which BOS and EOS are two."""
    tokenizer = encoder.tokenizer
    known = {word for row in rows for text in row["captions"] for word in text.split()}
    whole = sorted(word for word in known if len(tokenizer.ids(word)) == 1)
    words = (whole * 50)[:48]
    long, first, other = (" ".join(words[:count]) for count in (48, 33, 29))
    assert len(tokenizer.ids(long)) == 48
    assert tokenizer.ids(long)[:33] == tokenizer.ids(first)
    fields = {"key": "a", "image": rows[0]["image"], "captions": [long, first, other]}
    for mode in ("itm", "itc"):
        stage = started(matcher, encoder, captions="captions", several=True, mode=mode)
        (told,) = stage.batch([fields])
        scores = told["match_score"]
        assert scores[0] == scores[1] != scores[2]
        assert told["match_score_cut"] == 1


def test_modes_and_weights_are_parts_of_what_a_score_is_kept_under(matcher):
    itm, itc = (MatchScore(matcher, mode=mode) for mode in ("itm", "itc"))
    assert itm.cached
    assert {**itm.params, "mode": "itc"} == itc.params != itm.params
    assert itm.params["weights"]
    assert matching.MODES == match_scorer.MODES


def test_a_score_that_is_no_number_costs_its_record_alone(matcher, encoder, rows):
    """Ranked it would be refused too; here it is before it is kept."""
    stage = started(matcher, encoder, captions="captions", several=True)
    given = [{"key": r["key"], "image": r["image"], "captions": r["captions"]} for r in rows[:3]]
    score = stage._scorer.score

    class Broken:
        def score(self, images, captions, owner):
            found = score(images, captions, owner)
            found.values[[text == rows[1]["captions"][2] for text in captions]] = np.nan
            return found

    stage._scorer = Broken()
    given[1]["captions"] = [*given[1]["captions"][:2], "w w w"]
    rows[1]["captions"][2] = "w w w"
    with pytest.raises(BadRecord, match=f"record '{rows[1]['key']}': .*'w w w' has the itm score"):
        stage.batch(given)
    called = call_batch(stage, given)
    assert [one.results is None for one in called] == [False, True, False]
    assert "has the itm score nan" in called[1].reason
    ranked = rank("captions", "match_score", "best", most=1)
    told = called[0].results[0]
    best = ranked(
        {"key": "a", "captions": given[0]["captions"], "match_score": told["match_score"]}
    )
    assert best["best_scores"] == [max(told["match_score"])]


def test_runs_and_modes_that_are_none(matcher, tmp_path):
    with pytest.raises(UserError, match="mode='cosine' must be one of itm, itc"):
        MatchScore(matcher, mode="cosine")
    with pytest.raises(UserError, match="no run directory with a checkpoint"):
        _ = MatchScore(tmp_path).params
    small = dict(image_layers=1, unimodal_layers=1)
    towers = run_of(tmp_path / "towers", "capjax.models.dual_encoder", size_overrides=small)
    stage = MatchScore(towers)
    with pytest.raises(UserError, match=r"towers': the model capjax\.models\.dual_encoder has no "):
        stage.start()
    other = MatchScore(towers, mode="itc")
    other.start()
    assert other._scorer.mode == "itc"

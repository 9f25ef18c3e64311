"""Stages that many pipelines share: filters, mixing, ranking, clusters, duplicates."""

import numpy as np
import pytest
from curating import Texts, pipeline, run

from capjax.curate.calls import call_one
from capjax.curate.stages import clusters
from capjax.curate.stages.choosing import at_least, rank
from capjax.curate.stages.clusters import Balance, Cluster
from capjax.curate.stages.duplicates import SameCaptions, SamePictures, picture_hashes
from capjax.curate.stages.hallucinations import hallucinations
from capjax.curate.stages.texts import FUNCTION_WORDS, join, language, length, mix
from capjax.errors import UserError


def result(stage, **fields):
    called = call_one(stage, fields)
    return called.reason if called.results is None else called.results


def test_lengths():
    stage = length("c", 2, 3)
    kept = {text: bool(result(stage, c=text)) for text in ("a", "a b", "a, b-c", "a b c d", None)}
    assert kept == {"a": False, "a b": True, "a, b-c": True, "a b c d": False, None: False}
    with pytest.raises(UserError, match="most=1 is below least=2"):
        length("c", 2, 1)


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("a dog on the beach with its owner", "en"),
        ("ein Hund mit seinem Besitzer auf der Wiese", "de"),
        ("un chien avec son maître sur la plage", "fr"),
        ("un perro con su dueño en la playa", "es"),
        ("собака на пляже", None),
        ("2015 44", None),
    ],
)
def test_languages(text, of):
    kept = {name for name in FUNCTION_WORDS if result(language("c", name), c=text)}
    assert (of in kept) if of else not kept
    assert "en" not in kept or of == "en"


def test_tags_are_kept_by_the_language_filter():
    assert result(language("c"), c="IMG 4711 Toyota Corolla") == [{}]


def test_mixing_draws_by_the_key_alone():
    stage = mix({"raw": 0.5, "new": 0.5}, seed=3)
    drawn = [result(stage, key=f"k{i}", raw="r", new="n")[0] for i in range(10_000)]
    share = np.mean([one["caption_source"] == "raw" for one in drawn])
    assert abs(share - 0.5) < 0.015
    assert drawn[:50] == [result(stage, key=f"k{i}", raw="r", new="n")[0] for i in range(50)]
    other = mix({"raw": 0.5, "new": 0.5}, seed=4)
    assert drawn[:50] != [result(other, key=f"k{i}", raw="r", new="n")[0] for i in range(50)]
    assert result(stage, key="k", raw=None, new="n")[0]["caption_source"] == "new"
    assert result(stage, key="k", raw=None, new="") == "none of raw, new has a text"
    only = mix({"raw": 1.0, "new": 0.0})
    assert all(result(only, key=f"{i}", raw="r", new="n")[0]["caption"] == "r" for i in range(99))
    with pytest.raises(UserError, match="sum to 1"):
        mix({"raw": 0.5, "new": 0.6})


def test_joining():
    stage = join("a", "b", "c")
    assert result(stage, a="cat", b="a cat on a mat") == [{"c": "cat; a cat on a mat"}]
    assert result(stage, a="cat", b=None) == [{"c": "cat"}]


def test_ranking():
    """The unit oracles of ranking and fusion (arXiv 2306.11593): stable, and distinct."""
    stage = rank("c", "s", "best", 2)
    found = result(stage, key="k", c=["w", "x y", " x  y", "z"], s=[0.2, 0.9, 0.9, 0.5])
    assert found == [{"best": ["x y", "z"], "best_scores": [0.9, 0.5]}]
    whole = rank("c", "s", "best")
    found = result(whole, key="k", c=["a", "b", "c", "d"], s=[0.2, 0.9, 0.9, 0.5])
    assert found[0]["best"] == ["b", "c", "d", "a"]
    assert "have the scores" in result(stage, key="k", c=["a", "b"], s=[1.0, float("nan")])
    assert "are empty" in result(stage, key="k", c=[" "], s=[1.0])
    assert "have the scores" in result(stage, key="k", c=["a"], s=[1.0, 2.0])


def test_a_score_below_is_dropped():
    stage = at_least("s", 0.5)
    assert [result(stage, s=s) for s in (0.4, 0.5, None)] == [[], [{}], []]


def test_hallucinations():
    words = {"dog": ["puppy"], "cat": [], "person": ["man", "woman"]}
    stage = hallucinations("c", "d", words)
    found = result(stage, c="Two puppies, a cat and a man.", d=["dog", "woman"])
    assert found == [{"hallucinated": ["cat"]}]
    strict = hallucinations("c", "d", words, most=0)
    assert result(strict, c="a cat", d=["dog"]) == []
    assert result(strict, c="a puppy", d=["dog"]) == [{"hallucinated": []}]
    assert "'horse'" in call_error(strict, c="a cat", d=["horse"])


def call_error(stage, **fields):
    with pytest.raises(UserError) as caught:
        call_one(stage, fields)
    return str(caught.value)


@pytest.fixture(scope="module")
def blobs():
    """300 points around 6 centres, of very different sizes: [300,4] and their true cluster."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 10, (6, 4))
    of = rng.choice(6, 300, p=[0.5, 0.2, 0.15, 0.1, 0.03, 0.02])
    return (centres[of] + rng.normal(0, 0.3, (300, 4))).astype(np.float32), of


def test_k_means_finds_the_blobs(blobs):
    vectors, truth = blobs
    found = Cluster(6, seed=1).corpus({"embedding": vectors.tolist()})
    of = np.array([one["cluster"] for one in found])
    pairs = {(int(a), int(b)) for a, b in zip(of, truth, strict=True)}
    assert len(pairs) == 6
    centres = clusters.k_means(vectors, 6, seed=1)
    distance = np.linalg.norm(vectors[:, None] - centres, axis=-1)
    assert np.array_equal(of, distance.argmin(1))
    told = [one["cluster_distance"] for one in found]
    np.testing.assert_allclose(told, distance.min(1), atol=1e-4)
    assert found == Cluster(6, seed=1).corpus({"embedding": vectors.tolist()})


def test_k_means_of_few_and_alike():
    with pytest.raises(UserError, match="3 records cannot be in 4 clusters"):
        clusters.k_means(np.zeros((3, 2), np.float32), 4)
    assert clusters.k_means(np.ones((9, 2), np.float32), 3).tolist() == [[1.0, 1.0]] * 3
    with pytest.raises(UserError, match="finite"):
        Cluster(1).corpus({"embedding": [[1.0], [float("inf")]]})


@pytest.mark.parametrize("rule", ["random", "near", "far"])
def test_balanced_sampling(blobs, rule):
    _, of = blobs
    rng = np.random.default_rng(2)
    columns = {
        "key": [f"k{i}" for i in range(300)],
        "cluster": of.tolist(),
        "cluster_distance": rng.random(300).tolist(),
    }
    sizes = np.bincount(of)
    kept = [one is not None for one in Balance(most=10, rule=rule).corpus(columns)]
    assert np.bincount(of[kept]).tolist() == np.minimum(sizes, 10).tolist()
    kept = np.array([one is not None for one in Balance(share=0.25, rule=rule).corpus(columns)])
    assert np.bincount(of[kept]).tolist() == [max(1, round(0.25 * n)) for n in sizes.tolist()]
    distance = np.array(columns["cluster_distance"])
    inside, outside = distance[(of == 0) & kept], distance[(of == 0) & ~kept]
    if rule == "near":
        assert inside.max() < outside.min()
    elif rule == "far":
        assert inside.min() > outside.max()


def test_same_captions_in_a_pipeline(tmp_path):
    _, rows = run(pipeline(SameCaptions("caption", threshold=1.0)), tmp_path / "a")
    assert [row["key"] for row in rows] == [f"r{i}" for i in range(50)]
    made = pipeline(
        SameCaptions("caption", threshold=1.0, drop=False), columns=("key", "duplicate_of")
    )
    _, rows = run(made, tmp_path / "b", Texts(60))
    assert [row["duplicate_of"] for row in rows] == [None] * 50 + [f"r{i}" for i in range(10)]


def test_same_pictures():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(3)]
    pictures.insert(1, np.clip(pictures[0].astype(int) + 3, 0, 255).astype(np.uint8))
    hashes = [result(picture_hashes(), image=picture)[0] for picture in pictures]
    columns = {"key": list("abcd"), "phash": [h["phash"] for h in hashes]}
    columns["dhash"] = [h["dhash"] for h in hashes]
    assert SamePictures().corpus(columns) == [{}, None, {}, {}]

"""Zero-shot, probes and picture-and-text queries: known answers, batches, devices, mistakes."""

import jax
import numpy as np
import pytest
from colours import PARAMS, VECTORS, Model, Tokenizer
from jax.sharding import NamedSharding, PartitionSpec

from capjax.errors import BadRecord, UserError
from capjax.evals import arithmetic, probe, zero_shot
from capjax.parallel.mesh import make_mesh

DATA = dict(name="colours", size=13)
COMMON = dict(model=Model(), tokenizer=Tokenizer())
CLASSES = ["red", "green", "blue", "grey"]


def zero_shot_of(batch_size=8, **options):
    options = dict(data=DATA, classes=CLASSES, templates=["a photo {}"]) | options
    return zero_shot.Evaluator(**COMMON, batch_size=batch_size, **options)


def probe_of(batch_size=8, **options):
    options = dict(train=dict(DATA, size=30, first=100), test=DATA, penalty=0.01) | options
    return probe.Evaluator(**COMMON, batch_size=batch_size, **options)


def arithmetic_of(batch_size=8, **options):
    options = dict(data=dict(DATA, queries=True)) | options
    return arithmetic.Evaluator(**COMMON, batch_size=batch_size, **options)


@pytest.mark.parametrize("make", [zero_shot_of, probe_of, arithmetic_of])
def test_values_do_not_depend_on_batch_or_devices(make):
    spread = jax.device_put(PARAMS, NamedSharding(make_mesh({"data": 8}), PartitionSpec()))
    whole = make(batch_size=13).run(PARAMS)
    assert len(whole) >= 2
    assert make(batch_size=8).run(PARAMS) == pytest.approx(whole, abs=1e-6)
    assert make(batch_size=8).run(spread) == pytest.approx(whole, abs=1e-6)


def test_a_classifier_that_knows_colours_is_right():
    assert zero_shot_of().run(PARAMS) == {
        "zero_shot_top_1": 1.0,
        "zero_shot_mean_per_class": 1.0,
    }
    # The classes of the data are the default, in alphabetical order.
    assert zero_shot_of(classes="").run(PARAMS)["zero_shot_top_1"] == 1.0


def test_a_template_that_says_something_else_misleads():
    values = zero_shot_of(templates=["{} blue blue"]).run(PARAMS)
    assert values["zero_shot_top_1"] < 1.0
    both = zero_shot_of(templates=["{} blue blue", "{}", "photo {}", "a {}"]).run(PARAMS)
    assert both["zero_shot_top_1"] > values["zero_shot_top_1"]


def test_classes_and_templates_come_from_files(tmp_path):
    (tmp_path / "classes.txt").write_text("red\ngreen\n\nblue\ngrey\n")
    (tmp_path / "classes.json").write_text('["red", "green", "blue", "grey"]')
    (tmp_path / "templates.txt").write_text("a photo {}\n")
    for name in ("classes.txt", "classes.json"):
        evaluator = zero_shot_of(
            classes=str(tmp_path / name), templates=str(tmp_path / "templates.txt")
        )
        assert evaluator.classes == tuple(CLASSES)
        assert evaluator.run(PARAMS)["zero_shot_top_1"] == 1.0


def test_probes_learn_from_labelled_pictures():
    values = probe_of(methods=["linear", "knn"], k=3).run(PARAMS)
    assert values["linear_top_1"] == values["knn_top_1"] == 1.0
    searched = probe_of(methods=["linear"], penalty=0.0).run(PARAMS)
    assert searched["linear_top_1"] == 1.0
    # An enormous penalty leaves hardly anything but the bias.
    assert probe_of(methods=["linear"], penalty=1e9).run(PARAMS)["linear_top_1"] < 0.7


def test_words_move_a_picture_to_another():
    values = arithmetic_of().run(PARAMS)
    assert values["arithmetic_recall_at_1"] == 1.0
    assert values["image_only_recall_at_1"] == 0.0
    # Without weight the words say nothing: the composed query is the picture.
    alone = arithmetic_of(text_weight=0.0).run(PARAMS)
    assert alone["arithmetic_recall_at_1"] == 0.0


def test_the_asking_picture_is_no_answer():
    gallery = np.array([[1.0, 0], [0.9, 0.1], [0, 1]])
    query = gallery[:1]
    assert arithmetic.ranks_without(query, gallery, [[1]], np.array([0])).tolist() == [1]
    assert arithmetic.ranks_without(query, gallery, [[2]], np.array([0])).tolist() == [2]
    # Here the asking picture is behind the target anyway.
    turned = np.array([[0.0, 1.0]])
    assert arithmetic.ranks_without(turned, gallery, [[2]], np.array([0])).tolist() == [1]


def test_compose_by_hand():
    image, added = np.array([[3.0, 0.0]]), np.array([[0.0, 5.0]])
    none = np.zeros((1, 2))
    assert arithmetic.compose(image, added, none)[0] == pytest.approx(np.array([1, 2]) / 5**0.5)
    assert arithmetic.compose(image, none, added)[0] == pytest.approx(np.array([1, -2]) / 5**0.5)
    assert arithmetic.compose(image, none, none)[0].tolist() == [1.0, 0.0]
    with pytest.raises(UserError, match=r"query embedding at .* is zero"):
        arithmetic.compose(image, none, image, text_weight=1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zero_shot_of(classes=["red", "red", "blue"]), r"1 stand more than once \(red\)"),
        (lambda: zero_shot_of(classes=["red", ""]), "'' is no class name"),
        (lambda: zero_shot_of(classes="absent.txt"), "cannot read the classes 'absent.txt'"),
        (lambda: zero_shot_of(templates=["a photo"]), "has no {} where"),
        (lambda: zero_shot_of(templates=[]), "there are none"),
        (lambda: zero_shot_of(classes=["red", "blue"]).run(PARAMS), r"2 labels .* \(green, grey\)"),
        (lambda: zero_shot_of(label="name").run(PARAMS), "no class name as its 'name'"),
        (lambda: probe_of(methods=["svm"]), "unknown probe 'svm': there are linear, knn"),
        (lambda: probe_of(methods=[]), "no probe is named"),
        (lambda: probe_of(validation_share=1.0), "validation_share is 1.0"),
        (lambda: probe_of(k=99).run(PARAMS), "k=99 neighbours of 30"),
        (lambda: arithmetic_of(data=DATA).run(PARAMS), "no record .* has queries"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_query_without_a_target_names_its_picture(monkeypatch):
    record = dict(key="x", image=np.zeros((8, 8, 3), np.uint8), captions=[], label="red")
    for queries, message in (
        ([{"add": "blue"}], "needs a 'target'"),
        ([{"target": "x"}], "words to 'add'"),
        ([{"add": "blue", "target": "x"}], "is no other picture"),
        ("blue", "is no list"),
    ):
        monkeypatch.setattr(
            "colours.Source.__getitem__", lambda self, i, q=queries: dict(record, queries=q)
        )
        with pytest.raises(BadRecord, match=f"record 'x'.*{message}"):
            arithmetic_of(data=dict(DATA, size=1)).run(PARAMS)


def test_vectors_cover_the_classes():
    assert set(VECTORS) == set(CLASSES)

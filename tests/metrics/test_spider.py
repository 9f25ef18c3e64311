"""SPIDEr and SPIDEr-max: printed values, properties, names that cannot lie, and mistakes."""

import functools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from capjax.errors import UserError
from capjax.metrics import References
from capjax.metrics.cider import cider
from capjax.metrics.measure import mean_of
from capjax.metrics.parsers import toy
from capjax.metrics.spider import (
    Spice,
    StandIn,
    best_of,
    measure,
    spider,
    spider_max,
    spread,
    values_of,
)
from capjax.metrics.tuple_f import no_synonyms, tuple_f

REFERENCES = {
    "A": ["a dog barks loudly", "a loud dog is barking"],
    "B": ["rain falls on a roof", "heavy rain on a tin roof"],
}
BEAMS = {
    "A": ["a dog barks loudly", "a dog is barking", "a cat meows"],
    "B": ["rain falls on a roof", "heavy rain falls", "a tin roof"],
}
CIDER = [[5.355867, 3.115939, 0.0], [6.102613, 2.019233, 2.364970]]
SPICE = np.array([[0.0, 6.0, 0.0], [0.0, 0.0, 0.0]])  # out of range on purpose


@pytest.fixture(scope="module")
def references():
    return References.from_captions(REFERENCES)


@pytest.fixture(scope="module")
def ciders(references):
    return values_of(references.align_several(BEAMS), cider)


def test_document_frequencies_come_from_the_references_alone(ciders):
    assert ciders == pytest.approx(np.array(CIDER), abs=5e-7)


@pytest.mark.parametrize("others", [["a dog barks loudly"] * 3, ["tin roof", "cat", "heavy dog"]])
def test_candidates_do_not_influence_one_another(references, ciders, others):
    """Failure detector: frequencies counted in candidates would change the values of clip A."""
    values = values_of(references.align_several({"A": BEAMS["A"], "B": others}), cider)
    assert values[0].tolist() == ciders[0].tolist()
    assert values[1].tolist() != ciders[1].tolist()


def test_printed_values_without_the_other_half(ciders):
    best = spider_max(ciders, StandIn("nothing", np.zeros((2, 3))))
    measures = best.measures()
    assert best.spider.max(axis=1) == pytest.approx([2.677933, 3.051307], abs=1e-6)
    assert measures["spider_max[nothing]"].value == pytest.approx(2.864620, abs=1e-6)
    assert best.best.tolist() == [0, 0]


def test_components_are_those_of_the_best_candidate(ciders):
    """Failure detector: the largest CIDEr-D of clip A, 5.355867, is at another candidate."""
    best = spider_max(ciders, Spice(SPICE))
    measures = best.measures()
    assert best.best.tolist() == [1, 0]
    assert best.spider[0].max() == pytest.approx(4.557970, abs=1e-6)
    assert measures["cider_d_max"].per_image == pytest.approx([3.115939, 6.102613], abs=1e-6)
    assert measures["spice_max"].per_image.tolist() == [6, 0]
    assert measures["spider_max"].value == pytest.approx((4.557970 + 3.051307) / 2, abs=1e-6)


def test_the_first_of_equal_candidates_is_taken():
    best = spider_max(np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 0.0]]), Spice(np.zeros((2, 3))))
    assert best.best.tolist() == [1, 0]
    # Equal in SPIDEr, not in the halves.
    best = spider_max(np.array([[1.0, 0.0]] * 2), Spice(np.array([[0.0, 1.0]] * 2)))
    assert best.cider.tolist() == [1, 1]
    assert best.half.values.tolist() == [0, 0]


HALVES = st.integers(2, 4).flatmap(
    lambda n: st.integers(1, 5).flatmap(
        lambda k: st.tuples(
            arrays.arrays(np.float64, (n, k), elements=st.floats(0, 10)),
            arrays.arrays(np.float64, (n, k), elements=st.floats(0, 1)),
        )
    )
)


@settings(deadline=None, max_examples=80)
@given(HALVES, st.randoms(use_true_random=False))
def test_properties_of_the_maximum(halves, chance):
    ciders, other = halves
    measures = spider_max(ciders, Spice(other)).measures()
    values = measures["spider_max"].per_image
    count = ciders.shape[1]

    first = spider_max(ciders[:, :1], Spice(other[:, :1])).measures()["spider_max"]
    single = measure(ciders[:, 0], Spice(other[:, 0]))["spider"]
    assert first.per_image.tolist() == single.per_image.tolist()

    for k in range(1, count):
        fewer = spider_max(ciders[:, :k], Spice(other[:, :k])).measures()["spider_max"].per_image
        assert np.all(fewer <= values)

    order = chance.sample(range(count), count)
    moved = spider_max(ciders[:, order], Spice(other[:, order])).measures()["spider_max"]
    assert moved.per_image.tolist() == values.tolist()

    doubled = spider_max(np.tile(ciders, 2), Spice(np.tile(other, 2))).measures()
    for name, one in doubled.items():
        assert one.per_image.tolist() == measures[name].per_image.tolist(), name

    both = measures["cider_d_max"].per_image + measures["spice_max"].per_image
    assert both / 2 == pytest.approx(values)
    assert measures["spider_max"].value == pytest.approx(values.mean())


@settings(deadline=None)
@given(HALVES)
def test_picks_are_ordered(halves):
    values = halves[0]
    largest, mean, smallest = (best_of(values, pick) for pick in ("max", "mean", "min"))
    assert np.all(largest >= mean - 1e-12)
    assert np.all(mean >= smallest - 1e-12)
    assert spread(values) == pytest.approx(largest - smallest)
    assert best_of(values).tolist() == values.max(axis=1).tolist()


def test_the_order_of_images_is_that_of_the_references(references, ciders):
    turned = dict(reversed(BEAMS.items()))
    assert np.array_equal(values_of(references.align_several(turned), cider), ciders)


def test_any_metric_can_be_used(references):
    words = values_of(
        references.align_several(BEAMS),
        lambda c: mean_of(np.array([len(tokens) for tokens in c.tokens])),
    )
    assert words.tolist() == [[4, 4, 3], [5, 3, 3]]
    assert best_of(words, "min").tolist() == [3, 3]


def test_the_label_of_the_parser_is_in_the_names(references, ciders):
    parser = toy.Parser()
    metric = functools.partial(tuple_f, parser=parser, synsets=no_synonyms)
    half = StandIn(parser.name, values_of(references.align_several(BEAMS), metric))
    assert set(spider_max(ciders, half).measures()) == {
        "spider_max[toy]",
        "cider_d_max[toy]",
        "toy_max",
        "spider_spread[toy]",
    }
    assert half.values[0].tolist() == [1, 1, 0]  # dog and (dog, bark), twice; an unknown cat
    single = StandIn("tuple_f", half.values[:, 0])
    assert list(measure(ciders[:, 0], single)) == ["spider[tuple_f]"]


def test_the_spread_within_a_beam(ciders):
    measures = spider_max(ciders, StandIn("none", np.zeros((2, 3)))).measures()
    expected = [5.355867 / 2, (6.102613 - 2.019233) / 2]
    assert measures["spider_spread[none]"].per_image == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("label", ["spice", " SPICE ", "", "  ", "a]b"])
def test_a_stand_in_cannot_be_called_spice(label):
    with pytest.raises(UserError, match="stands in for SPICE"):
        StandIn(label, np.zeros(2))


def test_bare_values_have_no_name(ciders):
    with pytest.raises(UserError, match="bare values cannot be called SPIDEr"):
        spider_max(ciders, SPICE)
    with pytest.raises(UserError, match="bare values cannot be called SPIDEr"):
        measure(ciders[:, 0], SPICE[:, 0])
    assert spider(ciders, SPICE)[0, 1] == pytest.approx(4.557970, abs=1e-6)


def test_an_empty_candidate_scores_0_with_a_warning(references):
    beams = {"A": ["a dog barks", "."], "B": ["rain", "heavy rain"]}
    with pytest.warns(UserWarning, match=r"candidate 1 of 1 images, the first 'A', has no words"):
        values = values_of(references.align_several(beams), lambda c: np.ones(2))
    assert values.tolist() == [[1, 0], [1, 1]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values_of(references.align_several(BEAMS), cider)


@pytest.mark.parametrize(
    ("beams", "message"),
    [
        ({"A": ["x", "y"], "B": ["x"]}, "image 'B' has 1 candidates but image 'A' has 2"),
        ({"A": "x", "B": "y"}, "candidates of image 'A' are a str: give a list"),
        ({"A": ["x"], "B": [3]}, "the candidate of image 'B' is a int"),
        ({"A": [], "B": []}, "image 'A' has no candidates"),
        ({"A": ["x"]}, r"1 references have no candidate \('B'\)"),
        ({"A": ["x"], "B": ["x"], "C": ["x"]}, r"1 candidates have no references \('C'\)"),
        ({}, "2 references have no candidate"),
    ],
)
def test_mistakes_in_candidates_are_named(references, beams, message):
    with pytest.raises(UserError, match=message):
        values_of(references.align_several(beams), cider)


def test_other_mistakes_are_named(references):
    two, one = np.zeros((2, 3)), np.zeros((1, 3))
    with pytest.raises(UserError, match="at least 2 images"):
        spider_max(one, Spice(one))
    with pytest.raises(UserError, match=r"\(2, 3\) and the other half of SPIDEr \(1, 3\) differ"):
        spider_max(two, Spice(one))
    with pytest.raises(UserError, match=r"needs values \[images, candidates\]"):
        spider_max(two[:, 0], Spice(two[:, 0]))
    with pytest.raises(UserError, match=r"SPIDEr at \[1, 2\] .* not a finite number"):
        spider_max(two, Spice(np.array([[0.0, 0, 0], [0, 0, np.nan]])))
    with pytest.raises(UserError, match=r"cannot pick 'median' .* choose max, min, mean"):
        best_of(two, "median")
    with pytest.raises(UserError, match=r"must be \[images, candidates\], not \(2,\)"):
        best_of(np.zeros(2))
    with pytest.raises(UserError, match="image 'A' has no reference"):
        References.from_captions({"A": []})
    with pytest.raises(UserError, match=r"values of shape \(1,\) for 2 images"):
        values_of(references.align_several(BEAMS), lambda c: np.zeros(1))

"""The budget of bad records: what it counts, when it stops, and that threads may share it."""

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from capjax.data.skips import SkipBudget
from capjax.errors import UserError


def test_no_bad_record_is_allowed_by_default():
    budget = SkipBudget(100)
    with pytest.raises(UserError) as error:
        budget.skip("x.jpg", "cannot be decoded")
    assert str(error.value) == (
        "1 of 100 records could not be used (first: 'x.jpg': cannot be decoded), more than "
        "max_bad_fraction=0 allows; repair them or raise it"
    )


def test_stops_at_the_first_record_beyond_the_fraction_and_names_the_first_bad_one():
    budget = SkipBudget(100, 0.02)
    budget.skip("a", "broken")
    budget.skip("b", "missing")
    with pytest.raises(UserError, match=r"3 of 100 .*first: 'a': broken.*max_bad_fraction=0.02"):
        budget.skip("c", "broken")


def test_a_key_counts_and_is_logged_once(caplog):
    budget = SkipBudget(10, 0.2)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            budget.skip("a", "broken")
        budget.skip("b", "missing")
    assert budget.count == 2
    assert budget.keys == ("a", "b")
    assert [record.getMessage() for record in caplog.records] == [
        "record 'a' left out: broken",
        "record 'b' left out: missing",
    ]


@pytest.mark.parametrize(
    ("total", "fraction", "allowed"), [(100, 0.29, 29), (3, 0.34, 1), (7, 1, 7)]
)
def test_the_fraction_is_exact_at_its_edge(total, fraction, allowed):
    budget = SkipBudget(total, fraction)
    for i in range(allowed):
        budget.skip(str(i), "broken")
    with pytest.raises(UserError):
        budget.skip("one more", "broken")


def test_threads_share_one_count():
    budget = SkipBudget(1000, 0.5)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: budget.skip(str(i % 500), "broken"), range(4000)))
    assert budget.count == 500
    with pytest.raises(UserError, match="501 of 1,000"):
        budget.skip("one more", "broken")


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(fraction):
    with pytest.raises(UserError, match="max_bad_fraction"):
        SkipBudget(10, fraction)


def test_it_does_not_silently_become_one_budget_for_each_worker():
    with pytest.raises(TypeError):
        pickle.dumps(SkipBudget(10))

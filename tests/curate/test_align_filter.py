"""ALIGN's filter: every rule at its boundary, ties, shards in any order, and what it refuses."""

import pickle
import random

import pytest

from capjax.curate.align_filter import (
    RULES,
    Candidate,
    Counts,
    Filter,
    Limits,
    candidate,
    summary,
    tokens,
    unigrams,
)
from capjax.errors import BadRecord, UserError

PAPER = Limits()
NINETEEN = " ".join(f"word{number}" for number in range(19))


def row(key, caption="a red dog", image=None, width=640, height=480, flagged=False):
    return Candidate(key, image or f"picture of {key}", width, height, caption, flagged)


def judged(rows, others=(), limits=PAPER, evaluation=frozenset()):
    """{key: rules broken} of the rows, in a corpus of these and others."""
    counts = Counts(limits)
    for each in (*rows, *others):
        counts.add(each)
    return {verdict.key: verdict.broken for verdict in map(Filter(counts, evaluation), rows)}


ORACLE = [
    (row("sides of 201", "a dog runs", width=201, height=201), ()),
    (row("a side of 200", "one dog sits", width=300, height=200), ("small",)),
    (row("unsafe", "two dogs sit", flagged=True), ("flagged",)),
    (row("ratio 3", "a long dog", width=603, height=201), ("elongated",)),
    (row("ratio below 3", NINETEEN + " twenty", width=201, height=602), ()),
    (row("with 999 others", "the first text", image="full"), ()),
    (row("with 1000 others", "the last text", image="too full"), ("many_texts",)),
    (row("beside 10", "ten of these"), ()),
    (row("beside 11", "eleven of these"), ("shared_text",)),
    (row("listed", "an evaluated picture", image="listed picture"), ("evaluation",)),
    (row("two words", "red - dog!"), ("short_text",)),
    (row("21 words", NINETEEN + " twenty one"), ("long_text",)),
]
BACKGROUND = [
    *(row(f"a{number}", f"text number {number}", image="full") for number in range(999)),
    *(row(f"b{number}", f"text number {number}", image="too full") for number in range(1000)),
    *(row(f"c{number}", "Ten  of these") for number in range(9)),
    *(row(f"d{number}", "eleven OF these ") for number in range(10)),
]


def test_each_rule_at_its_boundary():
    rows = [each for each, _ in ORACLE]
    got = judged(rows, BACKGROUND, evaluation={"listed picture"})
    assert got == {each.key: broken for each, broken in ORACLE}
    kept = [key for key, broken in got.items() if not broken]
    assert kept == ["sides of 201", "ratio below 3", "with 999 others", "beside 10"]


def test_the_limits_are_the_papers():
    assert Limits() == Limits(200, 3.0, 1000, 10, 100_000_000, 3, 20)


def test_all_rules_that_a_row_breaks_are_named_in_order():
    bad = row("bad", "cat", image="x", width=1, height=9, flagged=True)
    everything = judged([bad], evaluation=lambda image: image == "x")
    assert everything == {"bad": ("flagged", "small", "elongated", "evaluation", "short_text")}


def test_a_pair_met_twice_is_one_picture_and_one_text():
    limits = Limits(texts_per_image=1, images_per_text=1)
    rows = [row("first", image="x"), row("again", "A red  dog", image="x")]
    assert judged(rows, limits=limits) == {"first": (), "again": ()}
    assert judged([*rows, row("third")], limits=limits) == dict.fromkeys(
        ("first", "again", "third"), ("shared_text",)
    )


def test_words_and_their_pairs():
    words = unigrams("The dog's CAFÉ, well-kept!  (2nd) — 'x' a_b")
    assert words == ["the", "dog's", "café", "well", "kept", "2nd", "x", "a_b"]
    assert tokens(["a", "b", "a"]) == ["a", "b", "a", "a b", "b a"]
    assert tokens([]) == unigrams(" - ") == []


# dog 7, red 6, "red dog" 5, runs 4, then 3 each: sits, "dog runs", "dog sits"; once each: blue,
# "blue dog", "dog red", "red runs".
TEXTS = ["red dog runs"] * 3 + ["red dog sits"] * 2 + ["blue dog sits", "dog red runs"]


@pytest.mark.parametrize(
    ("most_frequent", "cut", "kept"),
    [
        (3, 5, set()),
        (4, 4, set()),
        (5, 3, {"red dog runs", "red dog sits"}),  # three tie for the fifth place: all are in
        (7, 3, {"red dog runs", "red dog sits"}),
        (8, 1, set(TEXTS)),
        (100_000_000, 1, set(TEXTS)),
    ],
)
def test_rare_words_and_rare_pairs_of_frequent_words(most_frequent, cut, kept):
    rows = [row(str(number), text) for number, text in enumerate(TEXTS)]
    counts = Counts(Limits(frequent_tokens=most_frequent))
    for each in rows:
        counts.add(each)
    assert counts.frequency_cut() == cut
    keep = Filter(counts)
    assert {each.caption for each in rows if keep(each).kept} == kept
    assert {keep(each).broken for each in rows} <= {(), ("rare_token",)}


def test_shards_and_their_order_change_nothing():
    rng = random.Random(0)
    limits = Limits(200, 3.0, 3, 3, 40, 2, 5)
    words = ["red", "blue", "dog", "cat", "runs", "sits", "far", "near", "now"]
    rows = []
    for number in range(400):
        caption = " ".join(rng.choices(words, range(9, 0, -1), k=rng.randint(1, 6)))
        size = rng.randint(190, 700), rng.randint(190, 700)
        rows.append(row(str(number), caption, f"i{rng.randint(0, 150)}", *size, rng.random() < 0.1))
    expected = judged(rows, limits=limits)
    assert {rule for broken in expected.values() for rule in broken} == set(RULES) - {"evaluation"}
    assert 40 < sum(not broken for broken in expected.values()) < 200
    for shards in (2, 3, 17):
        shuffled = rng.sample(rows, len(rows))
        parts = []
        for shard in range(shards):
            parts.append(Counts(limits))
            for each in shuffled[shard::shards]:
                parts[-1].add(each)
        total = Counts(limits)
        for part in rng.sample(parts, shards):
            total.merge(pickle.loads(pickle.dumps(part)))
        assert total.rows == 400
        keep = Filter(total)
        assert {each.key: keep(each).broken for each in rows} == expected


def test_merging_leaves_the_other_counts_alone():
    first, second = Counts(), Counts()
    first.add(row("a", image="x"))
    second.add(row("b", "a blue dog", image="x"))
    first.merge(second)
    first.add(row("c", "a third text", image="x"))
    assert (first.texts_of("x"), first.images_of("A blue dog"), first.tokens["a"]) == (3, 1, 3)
    assert (second.texts_of("x"), second.rows, second.tokens["a"]) == (1, 1, 1)


def test_the_summary_counts_rows_by_rule():
    rows = [each for each, _ in ORACLE] + [row("both", "cat", flagged=True)]
    counts = Counts()
    for each in (*rows, *BACKGROUND):
        counts.add(each)
    got = summary(map(Filter(counts, {"listed picture"}), rows))
    expected = {"rows": 13, "kept": 4, **dict.fromkeys(RULES, 1)}
    assert got == expected | {"flagged": 2, "short_text": 2, "rare_token": 0}
    assert summary([]) == dict.fromkeys(("rows", "kept", *RULES), 0)


FIELDS = dict(key="7", image="x", width=640, height=480, caption="a dog", flagged=False)


def test_a_row_becomes_a_candidate():
    assert candidate({**FIELDS, "url": "unused"}) == Candidate("7", "x", 640, 480, "a dog", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(width=None, caption=None), "record '7': lacks the field caption, width"),
        (dict(key=None), "record 'without a key': lacks the field key"),
        (dict(width=0), "width must be a positive number of pixels, not 0"),
        (dict(height=-3), "height must be a positive number of pixels, not -3"),
        (dict(height=3.5), "height must be a positive number of pixels, not 3.5"),
        (dict(width="640"), "width must be a positive number of pixels, not '640'"),
        (dict(caption=7), "caption must be text, not int"),
        (dict(image=b"x"), "image must be text, not bytes"),
        (dict(flagged="no"), "flagged must be true or false, not 'no'"),
    ],
)
def test_bad_rows_are_named(change, message):
    fields = {name: value for name, value in (FIELDS | change).items() if value is not None}
    with pytest.raises(BadRecord) as caught:
        candidate(fields)
    assert message in str(caught.value)


def test_mistakes_are_named():
    for field, value in (("aspect_ratio", 0.5), ("images_per_text", 0), ("most_unigrams", 2)):
        with pytest.raises(UserError, match=f"{field}={value} must be at least"):
            Limits(**{field: value})
    with pytest.raises(UserError, match="different limits cannot be merged"):
        Counts().merge(Counts(Limits(images_per_text=5)))
    counts = Counts()
    counts.add(row("a"))
    with pytest.raises(UserError, match="the row 'b' is not in the counts: count the whole"):
        Filter(counts)(row("b", "another text"))
    with pytest.raises(UserError, match="must be a set of picture ids or a function"):
        Filter(counts, "listed picture")

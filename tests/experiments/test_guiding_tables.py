"""The tables and figures of guiding: layouts, the binomial test, names of classes, scoring."""

import json

import numpy as np
import pytest

from capjax.errors import UserError, exit_cleanly
from capjax.report import curves
from experiments.guiding import (
    binomial,
    fine_grained,
    layouts,
    names_claims,
    published,
    scoring,
    tables,
)

SPACE = dict(
    cosine=0.3, clipscore=0.75, ref_only_clipscore=0.9, ref_clipscore=0.8, recall_at_1=0.2
) | {"recall_at_5": 0.4, "recall_at_10": 0.5}


def sweep(rows, **fields):
    """A sweep as the command writes it: CIDEr falls and R@1 rises from row to row."""
    made = []
    for i, row in enumerate(rows):
        scores = SPACE | {f"own_{k}": v / 2 for k, v in SPACE.items()}
        scores |= dict(cider=1.2 - 0.1 * i, bleu_4=0.3, rouge_l=0.5, recall_at_1=0.2 + 0.1 * i)
        scores |= dict(words=9.0, words_sd=1.0, characters=40.0, characters_sd=3.0)
        made.append(row | scores | {"captions": ["a heart", "a shape"], "truncated": 0.0})
    human = dict(SPACE, cider=0.9, bleu_4=0.2, rouge_l=0.4, words=11.0, words_sd=3.0)
    about = dict(captioner="runs/x", step=7, data="test.jsonl", pictures=2, judges=["clip", "own"])
    return about | {"rows": made, "human": human, "labels": ["heart", "star"]} | fields


GAMMAS = [{"guidance_scale": scale} for scale in (1.0, 2.0, 3.0)]
TOLD = [{"alpha": 5.0, "beta": 2.5}, {"alpha": 1.0, "beta": 1.0}]
SHOTS = [{"alpha": 1.0, "beta": 1.0, "shots": shots} for shots in (2, 50)]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("table_1", GAMMAS, ["ours | γ=2", "published | γ=1.2", "| ZeroCap |", "126.1"]),
        ("table_b1", GAMMAS, ["ours, bottleneck | γ=3", "published, attention_pooling", "130.3"]),
        ("table_2", GAMMAS, ["ours | human captions", "161.2"]),
        ("table_3", GAMMAS + SHOTS, ["ours | 50 shots", "published | 50 shots", "59.7"]),
        ("table_b2", GAMMAS, ["ours | γ=1 | 50.0 | 100.0", "42.4 | 58.5"]),
        ("table_b4", GAMMAS, ["ours: clip", "ours: own", "published: CoCa-2B", "0.125"]),
        ("figure_1", GAMMAS, ["published | γ=4"]),
        ("figure_2", GAMMAS, ["published, m=0.5, 20k"]),
        ("figure_5", GAMMAS, ["bottleneck | γ=2"]),
        ("figure_6", GAMMAS + TOLD, ["ours | α=5 β=2.5", "ours, frontier", "published | γ=1.6"]),
        ("figure_8", GAMMAS + SHOTS, ["published | 20 shots"]),
    ],
)
def test_every_table_is_written_beside_the_published_numbers(name, rows, expected, tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps(sweep(rows)))
    given = f"bottleneck={tmp_path / 'sweep.json'}"
    assert tables.main([name, "--sweep", given, "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / f"{name}.md").read_text()
    for part in expected:
        assert part in text
    kept = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert kept["rows"]
    assert '"captions":' not in json.dumps(kept["rows"])
    drawn = [(tmp_path / "out" / f"{name}{form}").exists() for form in (".png", ".svg")]
    assert drawn == [name.startswith("figure")] * 2


def test_what_a_sweep_lacks_is_named(tmp_path, capsys):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(sweep(GAMMAS, labels=[None, None])))
    out = ["--out", str(tmp_path)]

    def refused(argv):
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(lambda: tables.main([*argv, *out]))
        assert ended.value.code == 2
        return capsys.readouterr().err

    assert "no alpha rows" in refused(["figure_6", "--sweep", str(path)])
    assert "no `label`" in refused(["table_b2", "--sweep", str(path)])
    assert "needs --sweep, or both" in refused(["table_1"])
    assert "bottleneck=FILE" in refused(["table_b1", "--sweep", f"other={path}"])
    assert "one sweep, not of 2" in refused(["table_1", "--sweep", f"a={path}", f"b={path}"])
    (tmp_path / "bad.json").write_text("{}")
    assert "is no sweep" in refused(["table_1", "--sweep", str(tmp_path / "bad.json")])


def test_a_figure_is_png_or_svg_and_has_points(tmp_path):
    panel, point = curves.Panel("cider", "recall_at_1"), {"cider": 1.0, "recall_at_1": 0.2}
    with pytest.raises(UserError, match=r"name it \.png or \.svg"):
        curves.draw([tmp_path / "a.pdf"], [panel], [curves.Curve("ours", [point])])
    with pytest.raises(UserError, match="recall_at_1 over cider"):
        curves.draw([tmp_path / "a.png"], [panel], [curves.Curve("ours", [{"cider": 1.0}])])


def test_the_frontier_holds_what_nothing_beats():
    rows = [dict(cider=c, recall_at_1=r) for c, r in ((1, 5), (2, 4), (1, 4), (3, 1), (2, 4))]
    found = layouts.frontier(rows)
    assert [(row["cider"], row["recall_at_1"]) for row in found] == [(1, 5), (2, 4), (2, 4), (3, 1)]


@pytest.mark.parametrize("row", published.TABLE_B3, ids=lambda row: f"{row['form']} form")
def test_published_p_values_follow_from_the_published_percentages(row):
    """Within what rounding the percentages to one decimal leaves open, and rounding p itself."""
    found = binomial.published(row["percent"], published.PAIRS_JUDGED)
    places = 0.5e-6 if row["p_value"] < 1e-3 else 0.0005 if row["p_value"] < 0.1 else 0.005
    assert found["lowest"] - places <= row["p_value"] <= found["highest"] + places


def test_the_binomial_test_is_exact():
    # 2 (1 + 10 + 45) / 1024 by hand; a fair split is no evidence at all.
    assert binomial.p_value(8, 2) == pytest.approx(112 / 1024)
    assert binomial.p_value(2, 8) == binomial.p_value(8, 2)
    assert binomial.p_value(5, 5) == 1.0
    assert 0 < binomial.p_value(3000, 1000) < 1e-200
    told = binomial.test(["first"] * 8 + ["second"] * 2 + ["neither"] * 6)
    assert (told["answers"], told["percent"]) == (16, [50.0, 12.5, 37.5])
    assert told["p_value"] == pytest.approx(112 / 1024)
    with pytest.raises(UserError, match="answer 2 is 'maybe'"):
        binomial.test(["first", "maybe"])
    with pytest.raises(UserError, match="not 0 and 0"):
        binomial.p_value(0, 0)


def test_names_of_classes_are_whole_words_and_the_longest():
    classes = ["poodle", "toy_poodle", "Boston bull", "bull"]
    captions = ["a Toy Poodle sits", "two boston bulls", "a bullock", "a poodle and a bull"]
    labels = ["toy_poodle", "bull", "bull", "bull"]
    found = fine_grained.names(captions, labels, classes)
    # Of three captions with a name two are right: "boston bulls" says no other bull.
    assert (found["mentioned"], found["correct"]) == (0.75, pytest.approx(2 / 3))
    assert np.isnan(fine_grained.names(["a dog"], ["bull"], classes)["correct"])
    with pytest.raises(UserError, match="'pug' is none of the 4"):
        fine_grained.names(["a dog"], ["pug"], classes)
    with pytest.raises(UserError, match="2 captions and 1 labels"):
        fine_grained.names(["a", "b"], ["bull"], classes)


def test_four_in_five_captions_of_the_stand_in_are_generic():
    source = fine_grained.Source("val", 100)
    texts = [text for i in range(100) for text in source[i]["captions"]]
    share = np.mean([text == fine_grained.GENERIC for text in texts])
    assert 0.74 < share < 0.86
    record = source[3]
    assert all(record["label"] in t or t == fine_grained.GENERIC for t in record["captions"])
    named = fine_grained.Source("val", 100, generic=0.0)
    assert all(f" {named[i]['label']} " in t for i in range(100) for t in named[i]["captions"])
    np.testing.assert_array_equal(named[3]["image"], record["image"])
    with pytest.raises(UserError, match="generic=2 is a share"):
        fine_grained.Source(generic=2)


@pytest.mark.parametrize(
    ("mentioned", "expected"),
    [((0, 0, 0.3, 0.9, 1), True), ((0, 0.3, 0.2, 0.9, 1), False), ((0, 0, 0, 0.1, 0.1), False)],
)
def test_names_rise_if_they_fall_nowhere(mentioned, expected):
    scales = names_claims.SCALES
    found = {f"mentioned_gamma_{g:g}": m for g, m in zip(scales, mentioned, strict=True)}
    assert names_claims.rises(found) is expected


class Letters:
    """An encoder of texts: how often each of three letters occurs."""

    def texts(self, texts):
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], float)


def test_captions_are_scored_for_their_pictures_and_people_for_one_another():
    judge = scoring.Judge(Letters(), np.eye(3))
    references = [["a a", "a b"], ["b b b", "b c"], ["c", "c"]]
    row = scoring.score(["a a a", "b", "a"], references, {"eye": judge, "own": judge})
    # The third caption is nearest to the first picture; its own comes after it, tied with another.
    assert row["recall_at_1"] == row["own_recall_at_1"] == pytest.approx(2 / 3)
    assert row["clipscore"] == pytest.approx(2.5 * 2 / 3)
    assert row["cosine"] == pytest.approx(2 / 3)
    low, high = row["intervals"]["recall_at_1"]
    assert low <= 2 / 3 <= high
    people = scoring.human(references, {"eye": judge})
    first, second = (
        scoring.score(
            [own[k] for own in references], [[own[1 - k]] for own in references], {"eye": judge}
        )
        for k in (0, 1)
    )
    for name in ("cider", "clipscore", "recall_at_1", "ref_clipscore"):
        assert people[name] == pytest.approx((first[name] + second[name]) / 2)
    with pytest.raises(UserError, match="1 captions"):
        scoring.human([["a"], ["b", "c"]], {"eye": judge})

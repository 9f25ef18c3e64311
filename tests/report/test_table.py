"""Tables: values against the paper's printed ones, units, missing values and mistakes."""

import pytest

from capjax.errors import UserError
from capjax.report import table


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_prints_what_the_paper_prints(rows):
    lines = table.markdown(rows).splitlines()
    assert cells(lines[0]) == ["γ", "BLEU-4", "CIDEr", "RefOnlyCLIP-S", "CLIP-S", "R@1"]
    assert cells(lines[1]) == ["--:"] * 6
    assert cells(lines[2]) == ["1", "36.1", "126.1", "0.900", "0.775", "26.5"]
    assert cells(lines[7]) == ["4", "6.5", "17.3", "0.766", "0.782", "44.7"]
    assert len(lines) == 2 + len(rows) + 2
    assert lines[-1] == (
        "γ: guidance scale; BLEU-4, CIDEr: ×100; R@k: caption → picture recall in %; CLIP-S: as is."
    )


def test_the_note_speaks_only_of_columns_that_are_there(rows):
    assert table.markdown(rows, ["guidance_scale", "clipscore"]).endswith(
        "\n\nγ: guidance scale; CLIP-S: as is.\n"
    )


def test_rows_are_in_the_order_of_the_guidance_scale(rows):
    assert table.markdown(rows[::-1]) == table.markdown(rows)


def test_text_is_aligned(rows):
    lines = table.text(rows).splitlines()
    head, rule, *body = lines[: 2 + len(rows)]
    assert set(rule) == {"-"}
    assert {len(line) for line in (head, rule, *body)} == {len(head)}
    end = head.index("CIDEr") + len("CIDEr")
    assert [line[:end].split()[-1] for line in body] == [
        "126.1", "124.1", "113.2", "78.6", "41.7", "17.3"
    ]  # fmt: skip
    assert all(len(line) <= 100 for line in lines)


def test_missing_values_are_dashes_and_nan_is_seen(rows):
    given = [rows[0], {"guidance_scale": 2.0, "cider": float("nan"), "bleu_4": None}]
    lines = table.markdown(given, ["guidance_scale", "cider", "bleu_4", "recall_at_1", "spice"])
    assert cells(lines.splitlines()[3]) == ["2", "nan", "–", "–", "–"]


def test_the_own_space_stands_in_where_no_encoder_scored():
    own = [{"guidance_scale": 1.0, "own_recall_at_1": 0.5, "own_clipscore": 0.7}]
    assert "own CLIP-S | own R@1" in table.markdown(own)
    assert "own" not in table.markdown([{**own[0], "recall_at_1": 0.4}])
    assert "own" in table.markdown([{**own[0], "recall_at_1": 0.4}], ["own_recall_at_1"])


def test_other_columns_are_shown_when_named(rows):
    given = [{**rows[0], "breed|named": 0.0191, "intervals": {"cider": [1, 2]}}]
    assert "intervals" not in table.markdown(given)
    lines = table.markdown(given, ["guidance_scale", "breed|named"]).splitlines()
    assert lines[0] == r"| γ | breed\|named |"
    assert cells(lines[2]) == ["1", "0.019"]


def test_mistakes_are_named(rows):
    with pytest.raises(UserError, match="no column 'cidre' in the results; known: bleu_4, cider"):
        table.markdown(rows, ["cidre"])
    with pytest.raises(UserError, match="hold no rows"):
        table.text([])
    with pytest.raises(UserError, match="row 1 of the results has no number as its guidance_scale"):
        table.text([rows[0], {"cider": 0.3}])


def test_best_is_the_highest_of_a_metric_and_nothing_else(rows):
    assert table.best(rows, table.column("cider")) == "126.1"
    assert table.best(rows, table.column("recall_at_1")) == "49.4"
    assert table.best(rows, table.column("guidance_scale")) is None
    assert table.best(rows[:1], table.column("cider")) is None
    nan = {"guidance_scale": 9.0, "cider": float("nan")}
    assert table.best([*rows, nan], table.column("cider")) == "126.1"

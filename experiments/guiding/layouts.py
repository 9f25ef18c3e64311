"""How each table and figure of guiding is laid out: rows of ours, then the published ones.

Every function takes sweeps {name: what experiments.guiding.sweep wrote} and gives a `Result`. The
published numbers are of other data, a model of another size and other judges than most runs here:
they stand beside ours to be compared in their direction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from capjax.errors import UserError
from capjax.report import table
from capjax.report.curves import Curve, Panel
from experiments.guiding import binomial, published

Row = Mapping[str, Any]
Sweeps = Mapping[str, Mapping[str, Any]]
SETTING = ("guidance_scale", "alpha", "beta", "shots")
METRICS = (
    *("bleu_4", "meteor", "rouge_l", "cider", "ref_only_clipscore"),
    *("clipscore", "recall_at_1", "recall_at_5", "recall_at_10", "ref_clipscore"),
)
LENGTHS = ("words", "words_sd", "characters", "characters_sd")
RETRIEVAL = ("cosine", "recall_at_1", "recall_at_5", "recall_at_10")
NAMES = ("mentioned", "correct")
_HEADINGS = {"mentioned": "named", "correct": "of these right", "cosine": "cos"}
_TIMES_100 = ("mentioned", "correct")


@dataclasses.dataclass(frozen=True)
class Result:
    """A table or figure: Markdown, JSON, and what is drawn."""

    markdown: str
    data: dict[str, Any]
    panels: Sequence[Panel] = ()
    curves: Sequence[Curve] = ()


def setting_of(row: Row) -> dict[str, float]:
    """The fields that say how captions were decoded."""
    return {name: row[name] for name in SETTING if name in row}


def setting_text(row: Row) -> str:
    """ "γ=1.5", "α=5 β=2.5", "10 shots", or the row's name."""
    if "name" in row:
        return str(row["name"])
    if "shots" in row:
        return f"{row['shots']} shots"
    if "alpha" in row:
        return f"α={row['alpha']:g} β={row['beta']:g}"
    return f"γ={row['guidance_scale']:g}"


def single(sweeps: Sweeps) -> Mapping[str, Any]:
    """The only sweep; UserError if there are several."""
    if len(sweeps) != 1:
        raise UserError(f"this table is made of one sweep, not of {len(sweeps)}: give one")
    return next(iter(sweeps.values()))


def _rows(found: Mapping[str, Any], kind: str = "") -> list[dict[str, Any]]:
    """Rows of a sweep without their captions: of one kind ("gamma", "shots", "alpha") or all."""
    kept = []
    for row in found["rows"]:
        own = "shots" if "shots" in row else "alpha" if "alpha" in row else "gamma"
        if kind in ("", own):
            kept.append({k: v for k, v in row.items() if k != "captions"})
    if not kept:
        raise UserError(
            f"the sweep has no {kind} rows: make one with --"
            f"{ {'gamma': 'guidance'}.get(kind, kind) }"
        )
    return kept


def grid(groups: Mapping[str, Sequence[Row]], columns: Sequence[str]) -> str:
    """A Markdown table: a line a row, named by its group; columns that no row has are left out."""
    every = [row for rows in groups.values() for row in rows]
    shown = [name for name in columns if any(name in row for row in every)]
    head = ["", "setting", *(_heading(name) for name in shown)]
    lines = [head, ["---", "---", *["--:"] * len(shown)]]
    for group, rows in groups.items():
        for row in rows:
            lines.append([group, setting_text(row), *(_cell(name, row) for name in shown)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _heading(name: str) -> str:
    return _HEADINGS.get(name) or table.column(name).heading


def _cell(name: str, row: Row) -> str:
    value = row.get(name)
    if name in _TIMES_100 and isinstance(value, float):
        return f"{100 * value:.1f}" if value == value else table.MISSING
    return table.column(name).cell(row)


def _human(found: Mapping[str, Any]) -> list[Row]:
    if not found.get("human"):
        return []
    return [{"name": "human captions"} | found["human"]]


def _note(sweeps: Sweeps) -> str:
    parts = []
    for name, found in sweeps.items():
        told = f" with {found['language_model']}" if found.get("language_model") else ""
        judge = found["judges"][0] if found["judges"] else "nobody"
        parts.append(
            f"{name}: {found['captioner']} (step {found['step']}){told} on {found['pictures']:,} "
            f"pictures of {found['data']}, judged by {judge!r}"
        )
    return (
        "\nOurs: " + "; ".join(parts) + ". BLEU, METEOR, ROUGE-L, CIDEr ×100, recalls in %. Human "
        "captions are scored against the others of their picture. Published: arXiv 2307.16686.\n"
    )


def _result(
    title: str,
    sweeps: Sweeps,
    groups: Mapping[str, Sequence[Row]],
    columns: Sequence[str],
    panels: Sequence[Panel] = (),
    drawn: Sequence[Curve] = (),
) -> Result:
    plain = {name: [dict(row) for row in rows] for name, rows in groups.items()}
    told = {
        name: {key: found[key] for key in ("captioner", "step", "data", "pictures", "judges")}
        for name, found in sweeps.items()
    }
    text = f"# {title}\n\n{grid(groups, columns)}{_note(sweeps) if sweeps else ''}"
    return Result(text, {"title": title, "sweeps": told, "rows": plain}, panels, drawn)


def table_1(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    groups = {
        "ours": [*_rows(found, "gamma"), *_human(found)],
        "published": [*published.TABLE_1, *published.TABLE_1_OTHERS],
    }
    return _result("Table 1: metrics over the guidance scale", sweeps, groups, METRICS)


def table_b1(sweeps: Sweeps) -> Result:
    wanted = {"bottleneck": published.TABLE_1, "attention_pooling": published.TABLE_B1}
    if set(sweeps) - set(wanted):
        raise UserError(
            f"table_b1 has sweeps named {', '.join(wanted)}, not {', '.join(sweeps)}: give them as "
            "bottleneck=FILE attention_pooling=FILE"
        )
    groups = {}
    for name, rows in wanted.items():
        if name in sweeps:
            groups[f"ours, {name}"] = [*_rows(sweeps[name], "gamma"), *_human(sweeps[name])]
        groups[f"published, {name}"] = rows
    return _result("Table B.1: both variants over the guidance scale", sweeps, groups, METRICS)


def table_2(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    groups = {"ours": [*_rows(found), *_human(found)], "published": published.TABLE_2}
    return _result("Table 2: lengths of captions", sweeps, groups, LENGTHS)


def table_3(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    groups = {
        "ours": [*_rows(found), *_human(found)],
        "published": [*published.TABLE_3, *published.TABLE_3_OTHERS],
    }
    return _result("Table 3: a captioner that saw web data alone", sweeps, groups, METRICS)


def table_b2(rows: Sequence[Row]) -> Result:
    groups = {"ours": rows, "published (Stanford Dogs)": published.TABLE_B2}
    return _result("Table B.2: names of fine classes in captions", {}, groups, NAMES)


def table_b3(answers: Mapping[str, Any] | None) -> Result:
    rows = [
        told | {"checked": binomial.published(told["percent"], published.PAIRS_JUDGED)}
        for told in published.TABLE_B3
    ]
    title = "Table B.3: is one caption of two preferred?"
    lines = [
        f"# {title}\n",
        "| form | question | γ=1 | γ=2 | neither | published p | exact p | range by rounding |",
        "| --- | --- | --: | --: | --: | --: | --: | --- |",
    ]
    for row in rows:
        first, second, neither = row["percent"]
        p = row["checked"]
        lines.append(
            f"| {row['form']} | {row['question']} | {first} | {second} | {neither} | "
            f"{row['p_value']:g} | {p['p_value']:.2g} | {p['lowest']:.2g} to {p['highest']:.2g} |"
        )
    lines.append(
        "\nExact two-sided binomial test on the published percentages of "
        f"{published.PAIRS_JUDGED:,} pictures, without the answers that prefer neither.\n"
    )
    if answers:
        lines.append(
            f"Ours: {answers['answers']} answers, {answers['first']} for the first, "
            f"{answers['second']} for the second, {answers['neither']} for neither: "
            f"p = {answers['p_value']:.3g}.\n"
        )
    return Result("\n".join(lines), {"title": title, "published": rows, "ours": answers})


def table_b4(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    groups: dict[str, Sequence[Row]] = {}
    for number, name in enumerate(found["judges"]):
        prefix = f"{name}_" if number else ""
        groups[f"ours: {name}"] = [
            setting_of(row) | {key: row[prefix + key] for key in RETRIEVAL} for row in found["rows"]
        ]
    groups |= {f"published: {name}": rows for name, rows in published.TABLE_B4.items()}
    return _result("Table B.4: other retrievers", sweeps, groups, RETRIEVAL)


def _trade_off(found: Mapping[str, Any], x: str, ys: Sequence[str], title: str = "") -> list[Panel]:
    human = _human(found)
    return [Panel(x, y, title, {"human captions": human[0]} if human else {}) for y in ys]


def figure_1(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    rows = _rows(found, "gamma")
    drawn = [
        Curve("ours", rows, label=setting_text),
        Curve("published", published.TABLE_1, published=True, label=setting_text),
    ]
    groups = {"ours": [*rows, *_human(found)], "published": published.TABLE_1}
    panels = _trade_off(found, "cider", ("recall_at_1",))
    return _result(
        "Figure 1: R@1 over CIDEr", sweeps, groups, ("cider", "recall_at_1"), panels, drawn
    )


def figure_2(sweeps: Sweeps) -> Result:
    """Each sweep is one fine-tuning of the grid."""
    groups = {name: _rows(found, "gamma") for name, found in sweeps.items()}
    drawn = [Curve(name, rows) for name, rows in groups.items()]
    first = next(iter(sweeps.values()))
    panels = [
        panel
        for y in ("clipscore", "recall_at_1")
        for x in ("cider", "bleu_4", "meteor", "rouge_l")
        for panel in _trade_off(first, x, (y,))
        if any(x in row for rows in groups.values() for row in rows)
    ]
    every = {**groups, "human": _human(first), "published, m=0.5, 20k": published.TABLE_1}
    return _result("Figure 2: fine-tuning settings", sweeps, every, METRICS, panels, drawn)


def figure_5(sweeps: Sweeps) -> Result:
    """Each sweep is one data set. The paper prints no numbers for this figure."""
    groups, panels = {}, []
    for name, found in sweeps.items():
        groups[name] = [*_rows(found, "gamma"), *_human(found)]
        curve = Curve(name, _rows(found, "gamma"), label=setting_text)
        for panel in _trade_off(found, "cider", ("clipscore", "recall_at_1"), name):
            panels.append(dataclasses.replace(panel, curves=[curve]))
    columns = ("cider", "clipscore", "recall_at_1")
    return _result("Figure 5: other data sets", sweeps, groups, columns, panels)


def figure_6(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    scales, told = _rows(found, "gamma"), _rows(found, "alpha")
    best = frontier(told)
    drawn = [
        Curve("guidance scale", scales, label=setting_text),
        Curve("language model, all", told, joined=False),
        Curve("language model, frontier", best, label=setting_text),
        Curve("published", published.FIGURE_6, published=True, joined=False, label=setting_text),
    ]
    groups = {
        "ours": [*scales, *told, *_human(found)],
        "ours, frontier": best,
        "published": published.FIGURE_6,
    }
    panels = _trade_off(found, "cider", ("recall_at_1", "clipscore"))
    columns = ("cider", "clipscore", "recall_at_1", "recall_at_5", "recall_at_10", "words")
    return _result(
        "Figure 6: guidance scale against language model", sweeps, groups, columns, panels, drawn
    )


def figure_8(sweeps: Sweeps) -> Result:
    found = single(sweeps)
    rows = _rows(found, "shots")
    shown = [row for row in published.TABLE_3 if "shots" in row]
    drawn = [Curve("ours", rows), Curve("published", shown, published=True)]
    panels = [Panel("shots", y, log_x=True) for y in ("cider", "recall_at_1")]
    groups = {"ours": [*_rows(found), *_human(found)], "published": published.TABLE_3}
    columns = ("cider", "clipscore", "recall_at_1", "recall_at_5", "recall_at_10", "words")
    return _result("Figure 8: captions in the prompt", sweeps, groups, columns, panels, drawn)


def frontier(rows: Sequence[Row], x: str = "cider", y: str = "recall_at_1") -> list[Row]:
    """The rows that no other one equals or beats in both metrics and beats in one, by rising x."""

    def beaten(row: Row) -> bool:
        return any(
            other[x] >= row[x] and other[y] >= row[y] and (other[x] > row[x] or other[y] > row[y])
            for other in rows
        )

    return sorted((row for row in rows if not beaten(row)), key=lambda row: row[x])


OF_SWEEPS: dict[str, Callable[[Sweeps], Result]] = {
    "table_1": table_1,
    "table_b1": table_b1,
    "table_2": table_2,
    "table_3": table_3,
    "table_b4": table_b4,
    "figure_1": figure_1,
    "figure_2": figure_2,
    "figure_5": figure_5,
    "figure_6": figure_6,
    "figure_8": figure_8,
}

"""Ranking and fusing: the rule of the best two, the fuser's checks, the small world, the claims."""

import json
import math
import pathlib

import pytest

from capjax import config as configs
from capjax.curate import local
from capjax.curate.calls import call_one, gather
from capjax.curate.language.scripted import Scripted
from capjax.curate.pipeline import Pipeline, load
from capjax.curate.stage import Stage
from capjax.curate.stages.choosing import rank
from capjax.curate.workers import Tally
from capjax.errors import UserError
from experiments.rank_fuse import claims
from experiments.rank_fuse.measures import best_two, facts_of, joint, varied
from experiments.rank_fuse.pipeline import collect, fuse, pair, scripted, unusable
from experiments.rank_fuse.published import NUMBERS
from experiments.rank_fuse.script import fuse as by_script
from experiments.rank_fuse.worlds import FACTS, VALUES, Source, sentence

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def ranked(captions, scores, most=2):
    """What the stage of the pipeline gives, as `Called`."""
    stage = rank("candidates", "scores", "ranked", most=most)
    return call_one(stage, {"key": "p7", "candidates": captions, "scores": scores})


def test_the_best_two_are_distinct_and_ties_keep_the_captioners_order():
    scores = [0.2, 0.9, 0.9, 0.5]
    order = ranked(["a", "b", "c", "d"], scores, most=4).results[0]["ranked"]
    assert order == ["b", "c", "d", "a"]
    same = ["a red ball", "a blue  ball", " a blue ball", "a ball"]
    assert ranked(same, scores).results[0]["ranked"] == ["a blue ball", "a ball"]
    assert best_two(same, scores) == ["a blue ball", "a ball"]


@pytest.mark.parametrize("scores", [[0.1, math.nan], [0.1], [0.1, None]])
def test_scores_that_are_none_cost_the_record_and_name_it(scores):
    called = ranked(["a", "b"], scores)
    assert called.results is None
    assert "2 captions have the scores" in called.reason


def test_empty_captions_are_dropped_and_counted():
    stage = collect(("a", "b", "c"))
    told = call_one(stage, {"key": "p", "a": " x  y ", "b": "", "c": "z"})
    assert told.results == [{"candidates": ["x y", "z"], "empty": 1}]
    told = call_one(stage, {"key": "p", "a": " ", "b": "", "c": None})
    assert (told.results, told.reason) == (None, "no captioner wrote anything")
    for names in (("a",), ("a", "a")):
        with pytest.raises(UserError, match="nothing to rank"):
            collect(names)


def asked(first, second, *answers):
    """The result and the requests where a script gives these answers in turn."""
    left, seen = list(answers), []

    def answer(request):
        seen.append(request)
        return left.pop(0)

    stage = fuse(Scripted(answer, "turns", concurrency=1))
    (called,) = gather(stage, [{"first": first, "second": second}], Tally())
    return called.results[0], seen


def test_the_fuser_reads_the_better_caption_first():
    told, (request,) = asked("a red circle", "a star", "a red circle and a star")
    assert (told["fused"], told["fuse_status"]) == ("a red circle and a star", "ok")
    prompt = request.messages[-1]["content"]
    assert 0 < prompt.index("a red circle") < prompt.index("a star")


def test_a_single_caption_stays_and_no_model_is_asked():
    one = pair()({"ranked": ["a red circle"]})
    assert one == {"first": "a red circle", "second": "", "two": False}
    told, seen = asked(one["first"], one["second"])
    assert (told["fused"], seen) == ("a red circle", [])
    script = scripted()({"first": "a red circle", "second": ""})
    assert (script["fused"], script["fuse_model"]) == ("a red circle", "")


@pytest.mark.parametrize(
    "wrong",
    ["short", "The second caption: a star on a grey background", "<<first 1>> a circle it is"],
)
def test_an_answer_that_cannot_be_used_is_asked_for_once_more(wrong):
    first, second = "a red circle", "a star on a grey ground"
    assert unusable({"first": first, "second": second}, {"fused": wrong})
    told, seen = asked(first, second, wrong, "a red circle and a star on grey")
    assert (told["fuse_status"], len(seen)) == ("repaired", 2)
    told, seen = asked(first, second, wrong, wrong)
    assert (told["fused"], told["fuse_status"], len(seen)) == (first, "rejected", 2)


def test_a_second_run_pays_for_nothing_and_writes_the_same(tmp_path):
    calls = []

    def answer(request):
        calls.append(request)
        return "a red circle and a star"

    def run(name):
        made = Pipeline(
            "rank and fuse",
            (
                Stage("one", lambda key: {"a": f"a red circle {key}"}, {"key": str}, {"a": str}),
                Stage("two", lambda key: {"b": "a star"}, {"key": str}, {"b": str}),
                collect(("a", "b")),
                Stage(
                    "score",
                    lambda candidates: {"scores": [float(len(c)) for c in candidates]},
                    {"candidates": list[str]},
                    {"scores": list[float]},
                ),
                rank("candidates", "scores", "ranked", most=2),
                pair(),
                fuse(Scripted(answer, "test")),
            ),
            ("key", "first", "second", "fused", "fuse_status"),
        )
        local.run(
            made,
            Source("val", 12),
            tmp_path / name,
            cache=tmp_path / "cache",
            options=local.Options(threads=2, processes=1),
            progress=False,
        )
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("part-*.parquet"))]

    first = run("first")
    assert len(calls) == 12
    assert run("second") == first
    assert len(calls) == 12


def test_the_script_unites_facts_and_keeps_contradictions():
    fused = by_script(["a red object on a grey background", "a circle at the top left"])
    assert fused == "a red circle at the top left on a grey background"
    assert by_script(["a circle on the left", "an orange circle on the left"]) == (
        "an orange circle at the left"
    )
    both = by_script(["a red object", "a blue star in the centre"])
    assert both == "a red and blue star at the centre"
    assert FACTS(both) == {
        *(("colour", "red"), ("colour", "blue")),
        *(("shape", "star"), ("place", "centre")),
    }


def test_each_captioner_of_the_world_sees_its_part():
    worlds = {kind: Source("train", 300, kind) for kind in ("colours", "shapes", "noisy", "truth")}
    wrong, said = 0, 0
    for i in range(300):
        truth = worlds["truth"].truth(i)
        assert len(truth) in (4, 5)
        (colours,), (shapes,) = (worlds[kind].captions(i) for kind in ("colours", "shapes"))
        assert {kind for kind, _ in FACTS(colours)} == {"colour", "background"}
        assert {kind for kind, _ in FACTS(shapes)} == {"shape", "place"}
        assert FACTS(colours) | FACTS(shapes) == truth == FACTS(by_script([colours, shapes]))
        for text in worlds["truth"].captions(i):
            assert FACTS(text)
            assert FACTS(text) <= truth
        (noisy,) = worlds["noisy"].captions(i)
        own = {kind: {v for k, v in FACTS(noisy) if k == kind} for kind in VALUES}
        for kind, values in own.items():
            said += 1
            wrong += values != {v for k, v in truth if k == kind}
    assert 0.34 < wrong / said < 0.46
    with pytest.raises(UserError, match="captions='all' must be one of colours"):
        Source("train", 3, "all")


def test_facts_are_counted_as_often_as_they_are_told():
    world = Source("test", 2)
    looks = [world.looks(i) for i in range(2)]
    right = sentence({"colour": looks[0]["colour"]})
    other = next(c for c in VALUES["colour"] if c != looks[0]["colour"])
    facts = facts_of([right, sentence({"shape": looks[1]["shape"]})], world)
    assert (facts.true.tolist(), facts.false.tolist(), facts.rate) == ([1, 1], [0, 0], 0.0)
    both = joint([[right, right], [right, sentence({"colour": other})][::-1][:1]], world)
    assert both.true[0] == 2
    assert both.true.sum() + both.false.sum() == 3
    facts = facts_of([f"a {other} {looks[0]['shape']}", ""], world)
    assert (facts.true.tolist(), facts.false.tolist(), facts.rate) == ([1, 0], [1, 0], 0.5)


def test_distinct_ngrams_and_unequal_sets():
    told = varied({"a": ["a red ball", "a blue ball"], "b": ["a red ball", "a red ball"]})
    assert told["a"]["distinct_1"] == pytest.approx(4 / 6)
    assert told["a"]["distinct_2"] == pytest.approx(4 / 4)
    assert told["b"]["distinct_2"] == pytest.approx(2 / 4)
    with pytest.raises(UserError, match="there are 2 of a, 1 of b"):
        varied({"a": ["x", "y"], "b": ["x"]})


def test_the_noisy_captioner_is_blamed_for_its_own_words_alone():
    row = {"caption_0": "a", "caption_1": "b", "caption_2": "c"}
    rows = [row, row | {"caption_2": "a"}]
    assert claims.is_noisy_chosen(rows, [["a", "c"], ["a", "b"]]) == 0.5
    assert claims.is_noisy_chosen(rows, [["a", "b"], ["a", "b"]]) == 0


def test_permuted_scores_are_all_there_and_shifted_ones_stay_with_their_captioner():
    scores = [[10.0 * i, 10.0 * i + 1] for i in range(30)] + [[7.0]]
    assert claims.shifted([[1.0], [2.0, 3.0], [4.0]]) == [[4.0], [2.0, 3.0], [1.0]]
    assert claims.shifted(scores)[:2] == scores[1:3]
    found = claims.permuted(scores)
    assert [len(own) for own in found] == [len(own) for own in scores]
    assert sorted(s for own in found for s in own) == sorted(s for own in scores for s in own)
    moved = sum(a != b for a, b in zip(found, scores, strict=True))
    assert moved > 25
    assert len({own[0] % 10 for own in found[:30]}) > 1  # either captioner's, not its own alone


def test_the_pipeline_and_config_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="'runs/none' is no run directory with a checkpoint"):
        load("configs/curate/rank_fuse.py:captioners=runs/none+runs/other")
    with pytest.raises(UserError, match="nothing to rank among 1 captioners"):
        load("configs/curate/rank_fuse.py:captioners=runs/none")
    config = configs.load("configs/rank_fuse/captioner.py:curated=DIR")
    assert (config.data.train.column, config.data.train.path) == ("fused", "DIR")


def test_committed_results_name_every_claim():
    record = json.loads((ROOT / "experiments/rank_fuse/results/small.json").read_text())
    assert {finding["name"] for finding in record["findings"]} == {
        *("fused_covers_more", "fused_errs_no_more", "ablation_all_three"),
        *("ranking_finds_the_true_ones", "noisy_is_rarely_chosen"),
        *("ablation_permuted_scores", "who_wrote_it", "ablation_beside_another_picture"),
        *("another_scorer_agrees", "diversity"),
    }


def test_the_readme_shows_every_published_number():
    text = (ROOT / "experiments/rank_fuse/README.md").read_text()
    for number in NUMBERS:
        assert f"{number.value:g}" in text

"""CapsFusion: the prompt's budget, the script, what is no fusion, the small world, the claims."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capjax import config as configs
from capjax.curate import local
from capjax.curate.calls import gather
from capjax.curate.finished import Finished
from capjax.curate.language.request import CUT, Answer
from capjax.curate.language.scripted import Scripted
from capjax.curate.language.templates import load as load_template
from capjax.curate.pairs import Source as Pairs
from capjax.curate.pipeline import Pipeline, load
from capjax.curate.stages.texts import mix
from capjax.curate.workers import Tally
from capjax.errors import BadRecord, UserError
from experiments.capsfusion import claims, script
from experiments.capsfusion.budget import Characters, FitPrompt
from experiments.capsfusion.pipeline import Bare, first_sentence, fuse, no_fusion, ready
from experiments.capsfusion.published import NUMBERS
from experiments.capsfusion.triples import Source as Triples
from experiments.capsfusion.worlds import FACTS, NAMES, Source

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Words:
    """A word a token."""

    def ids(self, caption):
        return caption.split()

    def text(self, ids):
        return " ".join(ids)


def fitted(raw, synthetic, limit=256, template=None, tokens=None):
    """(the alt-text after the budget, how much was cut, tokens of the prompt)."""
    template, tokens = template or Bare(), tokens or Words()
    fields = {"key": "k", "alt_text": raw, "caption": synthetic}
    told = FitPrompt(template, tokens, limit)(fields)
    messages = template.messages(fields | {"alt_text": told["alt_text"]})
    prompt = "\n\n".join(message["content"] for message in messages)
    return told["alt_text"], told["alt_text_cut"], len(tokens.ids(prompt))


RAW, SYNTHETIC = (
    " ".join(f"{letter}{i}" for i in range(n)) for letter, n in (("r", 300), ("s", 20))
)


def test_the_alt_text_alone_is_cut_and_from_its_end():
    left, cut, count = fitted(RAW, SYNTHETIC)
    own = len(Bare().messages({"alt_text": "", "caption": ""})[1]["content"].split())
    assert own == 2  # the two marks
    assert count == 256
    assert cut == 300 + 20 + own - 256
    assert left.split() == RAW.split()[: 300 - cut]


@pytest.mark.parametrize("words", [233, 234, 235])
def test_at_exactly_the_budget_nothing_is_cut(words):
    raw = " ".join(RAW.split()[:words])
    left, cut, count = fitted(raw, SYNTHETIC)
    assert cut == max(0, words - 234)
    assert count == min(256, words + 22)
    assert left == " ".join(raw.split()[:234])


def test_the_budget_of_a_prompt_with_instructions():
    """Their marks are made of the text, so that a cut changes them, too."""
    template = load_template("fuse")
    left, cut, count = fitted("w " * 3000, "a car", 500, template, Characters(4))
    assert 495 < count <= 500
    assert cut > 0
    assert ("w " * 3000).startswith(left)


def test_budgets_that_cannot_be_kept():
    with pytest.raises(UserError, match="has 2 tokens without any text and its budget is 2"):
        FitPrompt(Bare(), Words(), 2)
    with pytest.raises(BadRecord, match=r"k.*has 22 tokens without its alt-text.*budget is 20"):
        fitted("a name", SYNTHETIC, 20)


def test_the_script_keeps_what_only_the_alt_text_knows():
    raw, synthetic = "Toyota Corolla 2015 for sale!!", "a car parked on a street"
    fused = script.fuse(raw, synthetic)
    assert fused == "a Toyota Corolla 2015 car parked on a street"
    assert script.entity_retention(raw, fused) == 1
    assert script.entity_retention(raw, synthetic) == 0
    assert script.entity_retention(raw, "a Toyota on a street") == pytest.approx(1 / 3)
    assert script.entity_retention("for sale", synthetic) is None
    assert script.fuse("", synthetic) == script.fuse("for sale", synthetic) == synthetic
    assert script.fuse(raw, "") == raw
    assert script.fuse("Orbita hd", "there is a red shape") == "there is a red Orbita"
    assert script.fuse("Orbita", "red things") == "Orbita red things"


def asked(rows, *answers):
    """Results and prompts of the fusing stage where a script gives these answers in turn."""
    left, seen = list(answers), []

    def answer(request):
        seen.append(request)
        return left.pop(0)

    stage = fuse(Scripted(answer, "turns", concurrency=1))
    called = gather(stage, rows, Tally())
    return [one.results[0] for one in called], seen


ROW = {"alt_text": "Toyota for sale", "caption": "a car on a street"}


@pytest.mark.parametrize(
    "answer",
    ["Toyota for sale. A car on a street.", "a car on a street, Toyota for sale"],
)
def test_two_texts_behind_each_other_are_no_fusion(answer):
    assert no_fusion(ROW, {"fused": answer})
    (told,), seen = asked([ROW], answer, "a Toyota on a street")
    assert (told["fused"], told["fuse_status"], len(seen)) == (
        "a Toyota on a street",
        "repaired",
        2,
    )
    (told,), seen = asked([ROW], answer, answer)
    assert (told["fused"], told["fuse_status"], len(seen)) == (ROW["caption"], "rejected", 2)
    assert not no_fusion(ROW, {"fused": "a Toyota for sale on a street with a car"})


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (["I'm sorry, I cannot help with that."], "refused"),
        ([Answer("a Toyota on", CUT, "script", 1, 1)] * 2, "cut"),
    ],
)
def test_refused_and_cut_answers_give_the_synthetic_caption(answers, status):
    (told,), seen = asked([ROW], *answers)
    assert (told["fused"], told["fuse_status"]) == (ROW["caption"], status)
    assert len(seen) == len(answers)


def test_without_an_alt_text_no_model_is_asked():
    (told,), seen = asked([ROW | {"alt_text": ""}])
    assert (told["fused"], told["fuse_model"], seen) == (ROW["caption"], "", [])


def test_both_texts_are_made_ready():
    def called(alt_text, *captions, empty="alt_text"):
        return ready(empty)({"key": "k", "alt_text": alt_text, "captions": list(captions)})

    assert called(" a\n b ", "c  d") == {"alt_text": "a b", "caption": "c d"}
    assert called(None, "c") == {"alt_text": "", "caption": "c"}
    assert called("a", " ") == called("a") == {"alt_text": "", "caption": "a"}
    with pytest.raises(BadRecord, match=r"k.*no synthetic caption"):
        called("a", "", empty="error")
    with pytest.raises(BadRecord, match=r"k.*no synthetic caption"):
        called("", "")
    with pytest.raises(BadRecord, match=r"k.*its caption is a int, no text"):
        called("a", 3)
    with pytest.raises(UserError, match="empty_caption='drop' must be one of"):
        ready("drop")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (" A cat sits. It sleeps.", "A cat sits."),
        ("a cat\nQuestion: what", "a cat"),
        ("version 2.5 of it", "version 2.5 of it"),
        ("", ""),
    ],
)
def test_pretrained_models_are_cut_at_the_first_sentence(text, first):
    assert first_sentence(text) == first


def test_the_world_ties_names_to_pictures_and_hides_them_from_synthetic_captions():
    world, again = (Source("train", 300, "fused") for _ in range(2))
    nameless = 0
    for i in range(300):
        name = NAMES[world.figure(i).shape]
        raw, synthetic = FACTS(world.alt_text(i)), FACTS(world.synthetic(i))
        assert raw <= {("name", name)}
        assert {kind for kind, _ in synthetic} == {"colour", "background", "place"}
        assert world.figure(i).shape not in world.synthetic(i)
        truth = {FACTS(text) for text in world.full(i)}
        assert truth == {synthetic | {("name", name)}}
        assert FACTS(world.captions(i)[0]) == raw | synthetic
        assert world.captions(i) == again.captions(i)
        nameless += not raw
    assert 15 < nameless < 50
    kinds = {kind: Source("train", 300, kind) for kind in ("alt_text", "synthetic", "mixed")}
    raws = [kinds["mixed"].captions(i) == kinds["alt_text"].captions(i) for i in range(300)]
    assert 0.4 < np.mean(raws) < 0.6
    with pytest.raises(UserError, match="captions='raw' must be one of alt_text"):
        Source("train", 3, "raw")


def through(directory, answer, records=40):
    """A run of the pipeline's stages on the small world, with a script."""
    template = load_template("fuse")
    made = Pipeline(
        "capsfusion",
        (
            ready(),
            FitPrompt(template, Characters(), 600),
            fuse(Scripted(answer, "test"), template),
            mix({"alt_text": 0.5, "caption": 0.5}, output="mixed"),
        ),
        ("key", "alt_text", "caption", "fused", "fuse_status", "mixed"),
        source={"key": str, "captions": list[str], "alt_text": str},
    )
    options = local.Options(chunk=16, threads=2, processes=1)
    source = Source("train", records, "synthetic")
    local.run(made, source, directory, options=options, part_size=25, progress=False)
    return list(Finished(directory).rows())


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """A run whose model refuses records of one name."""

    def answer(request):
        text = request.messages[-1]["content"]
        own, other = (part.split("\n")[1] for part in text.split("<<")[1::2])
        return "I cannot help with that." if "Orbita" in own else script.fuse(own, other)

    directory = tmp_path_factory.mktemp("fused")
    return directory, through(directory, answer)


def test_a_pipeline_of_texts_ends_with_all_kinds_of_captions(fused):
    _, rows = fused
    assert len(rows) == 40
    for row in rows:
        refused = "Orbita" in row["alt_text"]
        assert row["fuse_status"] == ("refused" if refused else "ok")
        whole = script.fuse(row["alt_text"], row["caption"])
        assert row["fused"] == (row["caption"] if refused else whole)
        assert row["mixed"] in (row["alt_text"], row["caption"])
    told = claims.accounted([row for row in rows if "Orbita" not in row["alt_text"]])
    assert (told["names_kept"], told["seen_kept"], told["entity_retention"]) == (1, 1, 1)
    assert (told["lost_a_caption"], told["invented_a_caption"]) == (0, 0)


def test_pictures_meet_the_captions_of_a_pipeline(fused):
    directory, rows = fused
    data = dict(name="experiments.capsfusion.worlds", split="train", size=60)
    pairs = Pairs(data, str(directory), "fused", limit=30)
    world = Source("train", 60)
    assert len(pairs) == 30
    assert [pairs.captions(i) for i in range(30)] == [[row["fused"]] for row in rows[:30]]
    assert np.array_equal(pairs[7]["image"], world[7]["image"])
    assert pairs[7]["captions"] == [rows[7]["fused"]]
    assert len(Pairs(data, str(directory), "fused")) == 40  # the pipeline has not seen the others
    with pytest.raises(UserError, match="has no column 'fusion': there are key, alt_text"):
        Pairs(data, str(directory), "fusion")
    with pytest.raises(UserError, match="none of the 5 records of the data has a caption"):
        Pairs(data | dict(split="val", size=5), str(directory), "fused")


def test_a_fuser_learns_from_what_a_teacher_fused(fused, tmp_path):
    directory, rows = fused
    triples = Triples(f"{directory}/part-*.parquet")
    good = [row for row in rows if row["fuse_status"] == "ok" and row["alt_text"]]
    assert len(triples) == len(good) < 40
    row = good[0]
    assert triples.captions(0) == [f"{row['alt_text']} | {row['caption']} => {row['fused']}"]
    assert len(Triples(f"{directory}/part-*.parquet", limit=3)) == 3
    made_up = Triples(size=20, split="val")
    assert all(" | " in made_up.captions(i)[0] for i in range(len(made_up)))
    pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "part-0.parquet")
    with pytest.raises(UserError, match="has no column 'alt_text'"):
        Triples(str(tmp_path / "part-0.parquet"))
    with pytest.raises(UserError, match="no file is called"):
        Triples(str(tmp_path / "none-*.parquet"))


def test_the_pipeline_file(monkeypatch):
    monkeypatch.chdir(ROOT)
    made = load("configs/curate/capsfusion.py:model=a,limit=300,tokenizer=,rewrites=True")
    assert [stage.name for stage in made.stages] == [
        *("ready", "fit the prompt", "fuse", "rewrite", "mix to mixed"),
    ]
    assert made.stages[2].params["max_tokens"] == 80
    with pytest.raises(UserError, match="its budget is 100: raise limit"):
        load("configs/curate/capsfusion.py:limit=100")
    with pytest.raises(UserError, match="a student fuses and does nothing else"):
        load("configs/curate/capsfusion.py:student=runs/x,rewrites=True")


def test_training_follows_the_scale(monkeypatch):
    monkeypatch.chdir(ROOT)
    for millions, warmup in ((10, 500), (50, 1000), (100, 2000)):
        config = configs.load(f"configs/capsfusion/captioner.py:scale={millions}000000")
        assert config.optimizer.schedule.warmup_steps == warmup
        assert config.steps == millions * 1_000_000 // 8192
        assert (config.optimizer.learning_rate, config.optimizer.schedule.end_fraction) == (
            3e-4,
            0.1,
        )
    columns = {
        kind: configs.load(f"configs/capsfusion/encoder.py:captions={kind}").data.train.column
        for kind in ("alt_text", "synthetic", "mixed", "fused", "rewritten")
    }
    assert columns == {
        "alt_text": "alt_text",
        "synthetic": "caption",
        "mixed": "mixed",
        "fused": "fused",
        "rewritten": "rewritten",
    }


def test_captions_are_judged_by_the_truth():
    world = Source("test", 4)
    right = [world.full(i)[0] for i in range(4)]
    told = claims.judged([right[0], world.synthetic(1), "", "a red Orbita"])
    assert told["entity_recall"].tolist()[:3] == [1, 0, 0]
    assert told["true_facts"][0] == len(FACTS(right[0]))
    assert told["true_facts"][1] == len(FACTS(right[1])) - 1
    assert (told["true_facts"][2], told["false_facts"][2]) == (0, 0)
    assert told["true_facts"][3] + told["false_facts"][3] == 2
    assert told["cider"][0] > told["cider"][1] > told["cider"][2] == 0


def test_committed_results_name_every_claim():
    record = json.loads((ROOT / "experiments/capsfusion/results/small.json").read_text())
    assert {finding["name"] for finding in record["findings"]} == {
        "fused_captions_hold_both",
        "ablation_fuser_without_alt_text",
        "ablation_fuser_without_synthetic",
        "names_are_learned",
        "ablation_names_without_alt_text",
        "fused_above_all_others",
        "synthetic_saturates",
    }


def test_the_readme_shows_every_published_number():
    text = (ROOT / "experiments/capsfusion/README.md").read_text()
    for number in NUMBERS:
        assert f"{number.value:g}" in text

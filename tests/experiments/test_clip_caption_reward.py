"""CLIP reward: oracles of its arithmetic, FineCapEval by hand, controls, what claims require."""

import csv
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import policy_toy as toy
import pytest

from capjax import config as configs
from capjax.errors import UserError
from capjax.evals.scene_captions import repeated_bigrams
from capjax.metrics.clipscore import WEIGHT
from capjax.rewards.captions import of_tokens
from capjax.rewards.clip_similarity import harmonic_mean
from capjax.rewards.weighted import Rewards
from capjax.tasks import policy_baselines, policy_estimators
from experiments.clip_caption_reward import claims, finecapeval, grammar_accuracy, recipe
from experiments.clip_caption_reward.finecapeval import recall, stems
from experiments.clip_caption_reward.porter import stem
from experiments.clip_caption_reward.published import ROWS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "experiments" / "clip_caption_reward"
SHUFFLED = "capjax.rewards.shuffled"


def weights(**how):
    return {k: v["weight"] for k, v in recipe.rewards("clips_grammar", "run", {}, **how).items()}


def test_advantage_of_the_reported_results_and_of_the_formula():
    """Cosines .32 and .30 of the drawn and the greedy caption, grammar .9 and .6."""
    code = weights()
    paper = weights(clips_weight=1.0, grammar_weight=2.0)
    similarity = WEIGHT * np.maximum([0.32, 0.30, -0.1], 0)
    assert similarity[2] == 0
    gain = {"clips": similarity[0] - similarity[1], "grammar": 0.9 - 0.6}
    assert code["clips"] * gain["clips"] == pytest.approx(0.1)
    assert sum(code[name] * gain[name] for name in gain) == pytest.approx(0.4)
    assert sum(paper[name] * gain[name] for name in gain) == pytest.approx(0.65)


def test_captions_like_the_greedy_one_teach_nothing():
    rewards = jnp.array([[0.7, 0.7], [0.2, 0.2]])
    advantage = policy_baselines.advantages("greedy", rewards, rewards[:, 0], jnp.zeros(()))
    weight = jnp.full((2, 2, 3), 1 / 12)

    def loss(log_p):
        return policy_estimators.reinforce(log_p, advantage, weight)

    value, slope = jax.value_and_grad(loss)(jnp.full((2, 2, 3), -1.5))
    assert value == 0
    assert not slope.any()


def test_both_ways_to_weigh_references():
    assert harmonic_mean(0.75, 2.5 * 0.9) == pytest.approx(1.125)
    assert harmonic_mean(0.75, 0.9) == pytest.approx(0.81818, abs=1e-5)


def test_rows_of_the_table_are_rewards():
    assert set(recipe.rewards("cider", "run", {})) == {"cider"}
    assert set(recipe.rewards("clips", "run", {})) == {"clips"}
    assert set(recipe.rewards("cider_clips", "run", {})) == {"cider", "clips"}
    assert weights() == {"clips": 2.0, "grammar": 1.0}
    with pytest.raises(UserError, match="must be one of cider, clips"):
        recipe.rewards("bleu", "run", {})
    with pytest.raises(UserError, match="cannot be shuffled"):
        recipe.rewards("cider_clips", "run", {}, shuffled=True)


def test_shuffled_rewards_are_the_next_pictures():
    section = {"name": "policy_toy"}
    rows = jnp.array(toy.captions()[1:13], jnp.int32).reshape(3, 4, 4)
    captions = of_tokens(rows, toy.SPECIAL, jnp.arange(3), {})
    batch = {"image": toy.batch(3)[0]["image"]}
    found = {}
    for name, own in {
        "plain": section,
        "shuffled": {"name": SHUFFLED, "of": section},
    }.items():
        rewards = Rewards({"r": own}, None, toy.Tokenizer())
        assert not rewards.reads_texts
        prepared = rewards.prepare(rewards.arrays, batch)
        found[name] = np.asarray(rewards.score(rewards.arrays, prepared, captions, {})["r"])
    np.testing.assert_allclose(found["shuffled"], found["plain"][[1, 2, 0]])
    assert not np.allclose(found["shuffled"], found["plain"])
    strings = {"name": "capjax.rewards.function", "function": "policy_toy:by_strings"}
    with pytest.raises(UserError, match="of reads strings"):
        Rewards({"r": {"name": SHUFFLED, "of": strings}}, None, toy.Tokenizer())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *(("caresses", "caress"), ("ponies", "poni"), ("flies", "fli"), ("dies", "die")),
        *(("cats", "cat"), ("feed", "feed"), ("agreed", "agre"), ("hopping", "hop")),
        *(("falling", "fall"), ("filing", "file"), ("sized", "size"), ("happy", "happi")),
        *(("enjoy", "enjoy"), ("relational", "relat"), ("conditional", "condit")),
        *(("rationally", "ration"), ("geology", "geolog"), ("hopeful", "hope")),
        *(("adjustment", "adjust"), ("adoption", "adopt"), ("controlling", "control")),
        *(("skies", "sky"), ("standing", "stand"), ("carpet", "carpet"), ("is", "is")),
    ],
)
def test_stems_are_those_of_nltk(word, expected):
    assert stem(word) == expected


def test_parity_finds_pieces_and_word_finds_words():
    wanted = finecapeval.phrases("red car")
    assert wanted == [["red", "car"]]
    assert recall("a red carpet", wanted) == 1.0
    assert recall("a red carpet", wanted, "word") == 0.5
    assert recall("red cars", wanted, "word") == 1.0


def test_phrases_are_parted_stemmed_and_averaged():
    assert stems("The Dogs, running (fast)!") == ["the", "dog", "run", "fast"]
    wanted = finecapeval.phrases("Two Dogs\\;x\\;green grass\\;!!")
    assert wanted == [["two", "dog"], ["green", "grass"], []]
    # 1/2 and 1, and 0 for what has no word; without it in the mode of words.
    assert recall("a dog on green grass", wanted) == pytest.approx(0.5)
    assert recall("a dog on green grass", wanted, "word") == pytest.approx(0.75)
    assert recall("", wanted) == recall("a dog", []) == 0


def table(path, rows, columns=finecapeval.COLUMNS):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def test_finecapeval_by_hand(tmp_path):
    path = table(
        tmp_path / "f.csv",
        [
            ("1.jpg", "a red car on a road", "road", "red car", "on a road"),
            ("1.jpg", "a car", "grey sky\\;road", "car", "on"),
            ("2.jpg", "a dog", "grass", "dog", "runs"),
            ("2.jpg", "a dog runs", "", "dog", "runs"),  # an empty cell: the row is left out
            ("2.jpg", "a dog runs", "grass", "dog", "None"),  # likewise, to the released code
        ],
    )
    pictures = finecapeval.read(path, rows=5)
    assert [len(own.captions) for own in pictures.values()] == [2, 1]
    found = finecapeval.score({"1": "a red carpet on a road", "2": "a dog"}, pictures)
    # Of picture 1: (1 + 0 + 1) / 3, (1 + 1) / 2, (1 + 1) / 2; of picture 2: 0, 1 and 0.
    assert found == pytest.approx({"background": 100 / 3, "object": 100, "relation": 50})
    words = finecapeval.score({"1": "a red carpet on a road", "2": "a dog"}, pictures, "word")
    assert words["object"] == pytest.approx(100 * ((0.5 + 0) / 2 + 1) / 2)
    overall = finecapeval.overall({"1": "a red car on a road", "2": "a dog"}, pictures)
    assert overall["bleu_1"] == pytest.approx(1)


def test_finecapeval_command(tmp_path, monkeypatch, capsys):
    path = table(tmp_path / "f.csv", [("1.jpg", "a car", "road", "car", "on")])
    monkeypatch.setattr(finecapeval.read, "__defaults__", (1,))
    (tmp_path / "c.json").write_text(json.dumps({"1": "a car on a road"}))
    argv = ["x", "--data", str(path), "--candidates", str(tmp_path / "c.json")]
    monkeypatch.setattr("sys.argv", [*argv, "--json", str(tmp_path / "out.json")])
    assert finecapeval.main() == 0
    told = json.loads((tmp_path / "out.json").read_text())
    assert (told["background"], told["pictures"], told["match"]) == (100, 1, "parity")
    assert "background  100" in capsys.readouterr().out


def test_other_files_and_missing_captions(tmp_path):
    rows = [("1.jpg", "a car", "road", "car", "on")]
    with pytest.raises(UserError, match=r"expected 5000 rows of image, .* found 1 rows of image"):
        finecapeval.read(table(tmp_path / "f.csv", rows))
    wrong = table(tmp_path / "g.csv", rows, ("picture", *finecapeval.COLUMNS[1:]))
    with pytest.raises(UserError, match="found 1 rows of picture"):
        finecapeval.read(wrong, rows=1)
    with pytest.raises(UserError, match="cannot read"):
        finecapeval.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="1 of 1 pictures of FineCapEval have no caption"):
        finecapeval.score({}, finecapeval.read(tmp_path / "f.csv", rows=1))


def test_repeated_bigrams():
    assert repeated_bigrams("red red red red red") == 0.75
    assert repeated_bigrams("a red car a red car") == pytest.approx(2 / 5)
    assert repeated_bigrams("a red") == repeated_bigrams("") == 0


def test_a_judge_is_right_about_captions_and_corruptions(monkeypatch):
    """One that finds all good is right about half of them."""
    params = {"grammar_head": {}}
    judge = types.SimpleNamespace(model=toy.Encoder(), params=params, tokenizer=toy.Tokenizer(6))
    judge.tokenizer.encode_batch = lambda texts: np.stack(
        [judge.tokenizer.encode(t) for t in texts]
    )
    monkeypatch.setattr(grammar_accuracy, "text_features", lambda model, params, rows: rows)
    always = types.SimpleNamespace(
        apply=lambda params, rows: jnp.stack([0 * rows[:, 0], 0 * rows[:, 0] + 1], 1)
    )
    monkeypatch.setattr(grammar_accuracy, "GrammarHead", lambda: always)
    found = grammar_accuracy.grammar_accuracy(judge, ["red blue", "blue", "red red"])
    assert found == {"captions": 1.0, "corrupted": 0.0, "accuracy": 0.5}


def made(clip_s, recall, cider, repeated):
    """A system's captions of 200 pictures that score so on average."""
    noise = np.random.default_rng(0).normal(0, 0.05, 200)
    return {
        "clip_s": clip_s + noise,
        "recall_at_1": (np.arange(200) < 200 * recall).astype(float),
        "cider": cider + noise,
        "repeated_bigrams": np.full(200, repeated) + np.abs(noise) / 10,
        "grammatical": np.ones(200),
    }


def holding(**changed):
    systems = {
        "mle": made(0.5, 0.1, 1.0, 0.0),
        "clips": made(0.9, 0.5, 0.4, 0.3),
        "both": made(0.85, 0.45, 0.8, 0.05),
        "cider": made(0.5, 0.1, 1.2, 0.0),
        "shuffled": made(0.5, 0.1, 1.0, 0.0),
    }
    found = claims.judged(**systems | changed)
    return {finding.name: finding.holds for finding in found}


def test_claims_hold_of_what_the_paper_says():
    assert all(holding().values())


def test_without_a_gain_there_is_no_share_of_it():
    found = holding(clips=made(0.5, 0.1, 1.0, 0.0))
    assert not any(found[x] for x in ("grammar_restores", "ablation_shuffled_rewards"))


def test_reinforcement_beside_the_curve_of_guidance():
    guided = [made(0.5, 0.1, 1.0, 0.0), made(0.6, 0.3, 0.5, 0.0)]
    ahead = claims.over_guidance(guided, made(0.9, 0.8, 0.75, 0.1), "recall_at_1")
    behind = claims.over_guidance(guided, made(0.9, 0.0, 0.75, 0.1), "recall_at_1")
    assert (ahead["verdict"], behind["verdict"]) == ("ahead", "behind")
    assert ahead["value"] == pytest.approx(0.8 - 0.2, abs=0.01)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("retrieval_rises", {"clips": made(0.9, 0.15, 0.4, 0.3)}),
        ("cider_falls", {"clips": made(0.9, 0.5, 1.0, 0.3)}),
        ("text_degenerates", {"clips": made(0.9, 0.5, 0.4, 0.0)}),
        ("grammar_restores", {"both": made(0.85, 0.45, 0.8, 0.2)}),
        ("grammar_restores", {"both": made(0.6, 0.45, 0.8, 0.05)}),
        ("cider_as_the_reward", {"cider": made(0.5, 0.1, 1.0, 0.0)}),
        ("ablation_shuffled_rewards", {"shuffled": made(0.6, 0.1, 1.0, 0.0)}),
    ],
)
def test_claims_that_can_fail(name, changed):
    assert holding(**changed)[name] is False


def test_configs_at_the_papers_size(monkeypatch):
    monkeypatch.chdir(ROOT)
    load = configs.load
    mle = load("configs/clip_caption_reward/captioner.py")
    assert (mle.steps, mle.batch_size) == (15 * 566, 5 * 200)
    rate = mle.optimizer.learning_rate / mle.optimizer.schedule.warmup_steps
    assert rate == pytest.approx(5e-4 / 20_000)  # the warm-up that does not end
    short = load("configs/clip_caption_reward/captioner.py:warmup=1132").optimizer
    assert (short.learning_rate, short.schedule.warmup_steps) == (5e-4, 1132)
    judge = load("configs/clip_caption_reward/judge.py")
    assert (judge.batch_size, judge.optimizer.learning_rate) == (1600, 1e-4)
    assert judge.optimizer.frozen == ("^image_",)
    rl = load("configs/clip_caption_reward/reward.py")
    assert (rl.batch_size, rl.optimizer.learning_rate, rl.task.baseline) == (160, 5e-6, "greedy")
    assert rl.task.sampling.samples == 5
    assert rl.task.rewards.clips.prefix == "A photo depicts"
    assert load("configs/clip_caption_reward/reward.py:reward=cider").batch_size == 200
    with pytest.raises(UserError, match="size='big' must be one of paper, flickr8k, small"):
        load("configs/clip_caption_reward/reward.py:size=big")


def test_the_readme_shows_every_published_number():
    text = (FOLDER / "README.md").read_text()
    for row in ROWS:
        numbers = [x for x in row[2:7] if x is not None] + list(row.recalls or ())
        line = next(x for x in text.splitlines() if x.startswith(f"| {row.reward} |"))
        for number in numbers:
            assert f"{number:g}" in (line if row.cider != 106.5 else text)

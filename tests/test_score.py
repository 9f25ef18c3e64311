"""python -m capjax.score as a user calls it: files in, table and JSON out, mistakes named."""

import json
import subprocess
import sys

import pytest

from capjax import score
from capjax.errors import UserError

REFERENCES = {
    "images": [{"id": n} for n in (1, 2, 3)],
    "annotations": [
        {"id": n, "image_id": image, "caption": text}
        for n, (image, text) in enumerate(
            [
                (1, "a dog runs on grass"),
                (1, "the dog is running"),
                (2, "a cat sleeps on a sofa"),
                (2, "a sleeping cat"),
                (3, "two men ride bikes"),
                (3, "men on bikes"),
            ]
        )
    ],
}
GOOD = {1: "a dog runs on grass", 2: "a cat sleeps", 3: "two men on bikes"}
BAD = {1: "a dog", 2: "a man", 3: "a man on a sofa"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def results(captions):
        return [{"image_id": image, "caption": text} for image, text in captions.items()]

    (tmp_path / "refs.json").write_text(json.dumps(REFERENCES))
    (tmp_path / "good.json").write_text(json.dumps(results(GOOD)))
    (tmp_path / "bad.json").write_text(json.dumps(results(BAD)))
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["score", "--references", "refs.json", *arguments])
    score.main()


def test_one_system(files, monkeypatch, capsys):
    arguments = ("--candidates", "good.json", "--json", "out.json", "--per-image")
    run(monkeypatch, *arguments, "--resamples", "50")
    out = json.loads((files / "out.json").read_text())
    assert list(out) == ["metrics", "intervals", "per_image"]
    assert list(out["metrics"]) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert list(out["per_image"]) == ["1", "2", "3"]
    assert out["per_image"]["1"]["rouge_l"] == pytest.approx(1.0)
    low, high = out["intervals"]["cider"]
    assert low <= out["metrics"]["cider"] <= high
    table = capsys.readouterr().out
    assert "BLEU-4" in table
    assert f"{100 * out['metrics']['cider']:.1f} [" in table
    assert "3 images, 2.0 references each" in table


def test_several_systems_are_compared_with_the_first(files, monkeypatch, capsys):
    run(monkeypatch, "--candidates", "good.json", "bad.json", "--json", "out.json")
    out = json.loads((files / "out.json").read_text())
    assert list(out["systems"]) == ["good", "bad"]
    found = out["differences"]["bad"]["bleu_1"]
    values = [out["systems"][name]["metrics"]["bleu_1"] for name in ("bad", "good")]
    assert found["value"] == pytest.approx(values[0] - values[1])
    assert found["low"] <= found["value"] <= found["high"] < 0
    assert found["p_value"] < 0.05
    assert "bad - good" in capsys.readouterr().out


def test_an_image_without_a_value_is_null(files, monkeypatch):
    (files / "one.json").write_text('{"1": "dog", "2": "cat", "3": "bikes and men"}')
    arguments = ("--metrics", "diversity", "--json", "out.json", "--per-image")
    run(monkeypatch, "--candidates", "one.json", *arguments)
    text = (files / "out.json").read_text()
    assert "NaN" not in text
    per_image = json.loads(text)["per_image"]
    assert per_image["1"]["distinct_2"] is None
    assert per_image["3"]["distinct_2"] == 1.0


def test_a_subset_and_a_larger_corpus(files, monkeypatch):
    (files / "some.json").write_text(json.dumps({"1": GOOD[1], "3": GOOD[3]}))
    with pytest.raises(UserError, match=r"1 references have no candidate \('2'\)"):
        run(monkeypatch, "--candidates", "some.json", "--json", "out.json")
    assert not (files / "out.json").exists()
    out = {}
    for name, extra in (("own", ()), ("all", ("--document-frequencies", "refs.json"))):
        arguments = ("--candidates", "some.json", "--subset", "--json", "out.json", *extra)
        run(monkeypatch, *arguments)
        out[name] = json.loads((files / "out.json").read_text())["metrics"]
    assert out["own"]["bleu_4"] == out["all"]["bleu_4"]
    assert out["own"]["cider"] != out["all"]["cider"]


def test_each_guidance_scale_of_a_file_is_a_system(files, monkeypatch):
    lines = [
        json.dumps({"image": str(image), "guidance_scale": scale, "caption": text})
        for scale, captions in ((1.0, BAD), (2.0, GOOD))
        for image, text in captions.items()
    ]
    (files / "captions.jsonl").write_text("\n".join(lines))
    run(monkeypatch, "--candidates", "captions.jsonl", "--json", "out.json", "--resamples", "0")
    out = json.loads((files / "out.json").read_text())
    assert list(out["systems"]) == ["captions@1", "captions@2"]
    cider = {name: values["metrics"]["cider"] for name, values in out["systems"].items()}
    assert cider["captions@2"] > cider["captions@1"]
    assert out["differences"] == {}
    assert "intervals" not in out["systems"]["captions@1"]


SAMPLES = {1: ["a dog", "a dog runs on grass"], 2: ["a cat sleeps", "a man"], 3: ["men", "bikes"]}


def rows_of(samples, numbers=(0, 1)):
    return [
        {"image": str(image), "guidance_scale": 1.0, "caption": captions[k], "sample": k}
        for image, captions in samples.items()
        for k in numbers
    ]


def test_samples_of_a_picture_are_its_candidates(files, monkeypatch):
    """As capjax.caption --samples writes them: in lines, here in another order, and in parts."""
    rows = rows_of(SAMPLES, (1, 0))
    (files / "drawn.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = files / "parts"
    folder.mkdir()
    (folder / "settings.json").write_text('{"records": 3, "part_size": 2, "format": "jsonl"}')
    (folder / "part-00000.jsonl").write_text("\n".join(map(json.dumps, rows[:4])))

    def scores(name, *more):
        run(monkeypatch, "--candidates", name, *more, "--json", "out.json", "--per-image",
            "--resamples", "0")  # fmt: skip
        return json.loads((files / "out.json").read_text())

    with pytest.raises(UserError, match="images have 2 candidates: say with pick"):
        scores("drawn.jsonl")
    with pytest.raises(UserError, match="has 1 of its 2 parts"):
        scores("parts", "--pick", "first")
    (folder / "part-00001.jsonl").write_text("\n".join(map(json.dumps, rows[4:])))
    columns = []
    for k in (0, 1):
        one = files / f"sample{k}.json"
        one.write_text(json.dumps({i: captions[k] for i, captions in SAMPLES.items()}))
        columns.append(scores(one.name))
    assert (
        scores("drawn.jsonl", "--pick", "first") == columns[0] == scores("parts", "--pick", "first")
    )
    for pick, of in (("mean", lambda x: sum(x) / 2), ("max", max), ("min", min)):
        found = scores("drawn.jsonl", "--pick", pick)
        for image in SAMPLES:
            each = [column["per_image"][str(image)]["cider"] for column in columns]
            assert found["per_image"][str(image)][f"cider_{pick}"] == pytest.approx(of(each))
    mean = scores("drawn.jsonl", "--pick", "mean")["metrics"]
    for name, value in mean.items():
        each = [column["metrics"][name.removesuffix("_mean")] for column in columns]
        assert value == pytest.approx(sum(each) / 2), name
    varied = scores("drawn.jsonl", "--metrics", "diversity,self_bleu")["metrics"]
    assert varied["unique_captions"] == 1.0
    assert varied["div_1"] == pytest.approx((5 / 7 + 4 / 5 + 2 / 2) / 3)
    (files / "twice.jsonl").write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    with pytest.raises(UserError, match="'1, sample 1'"):
        scores("twice.jsonl", "--pick", "max")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--candidates", "absent.json"), "there is no file absent.json"),
        (("--candidates", "good.json", "good.json"), "given twice"),
        (("--candidates", "good.json", "--metrics", "blue"), "unknown metric 'blue'"),
        (("--candidates", "good.json", "--per-image"), "name it with --json"),
        (("--candidates", "good.json", "--json", "no/out.json"), "does not exist: make it first"),
        (("--candidates", "good.json", "--resamples", "-1"), "--resamples is -1"),
        (("--candidates", "good.json", "--metrics", "spider"), "needs a scene-graph parser"),
        (("--candidates", "good.json", "--parser", "capjax.nowhere"), "capjax.nowhere"),
        (("--candidates", "good.json", "--annotations", "a.json"), "belong to --objects"),
        (("--candidates", "good.json", "--document-frequencies", "x.npz"), "no file of document"),
    ],
)
def test_mistakes_are_named(files, monkeypatch, arguments, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, *arguments)
    assert sorted(path.name for path in files.iterdir()) == ["bad.json", "good.json", "refs.json"]


def test_a_mistake_ends_with_code_2_and_one_sentence(files):
    (files / "other.json").write_text('{"4": "x", "5": "y", "6": "z", "7": "w"}')
    command = [sys.executable, "-m", "capjax.score", "--references", "refs.json"]
    done = subprocess.run(
        [*command, "--candidates", "other.json", "--json", "out.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "capjax.score: other: 4 candidates have no references ('4', '5', '6', ...) and 3 references"
        " have no candidate ('1', '2', '3'): both need the same image ids"
    )
    assert not (files / "out.json").exists()


def test_help_needs_no_jax():
    command = [sys.executable, "-X", "importtime", "-m", "capjax.score", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "meteor" in done.stdout
    assert "jax.numpy" not in done.stderr

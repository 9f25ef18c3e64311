"""`capjax.evaluate` and `capjax.caption` on a small run, as a user would call them."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from capjax import caption, evaluate
from capjax import config as configs
from capjax.errors import UserError
from capjax.train import train

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A captioner and an encoder of a few steps: their captions are bad, their files are real."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("guiding", "contrastive"):
        config = configs.load(f"{ROOT}/configs/{kind}/scenes.py:runlocal")
        with config.unlocked():
            for section in config.evals.values():
                section.data.size = 20
        train(config, folder / kind)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of several sizes and modes in a folder with a folder."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (40, 50, 3)), ("b.jpg", (16, 90, 3)), ("more/c.png", (32, 32))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def call(monkeypatch, module, *args):
    monkeypatch.setattr(sys, "argv", ["capjax", *map(str, args)])
    return module.main()


def test_evaluate_writes_rows_report_and_captions(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    call(
        monkeypatch, evaluate, "--checkpoint", runs / "guiding", "--encoder",
        runs / "contrastive", "--guidance", "2,0,1", "--out", out, "--json", tmp_path / "only.json",
    )  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    assert results == json.loads((tmp_path / "only.json").read_text())
    assert [row["guidance_scale"] for row in results["rows"]] == [0, 1, 2]
    for row in results["rows"]:
        for name in ("cider", "bleu_4", "rouge_l", "clipscore", "ref_clipscore", "recall_at_1"):
            assert np.isfinite(row[name]), name
        assert row["recall_at_1"] <= row["recall_at_5"] <= row["recall_at_10"]
        assert row["intervals"]["cider"][0] <= row["cider"] <= row["intervals"]["cider"][1]
    assert results["rows"][0]["distinct_captions"] == 1, "gamma 0 must ignore the picture"
    lines = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 20
    first = [line["scores"]["cider"] for line in lines if line["guidance_scale"] == 1]
    np.testing.assert_allclose(np.mean(first), results["rows"][1]["cider"], atol=1e-5)
    page = (out / "report.html").read_text()
    assert lines[0]["key"] in page
    assert page.count("data:image/png;base64,") >= 20
    assert Image.open(out / "pareto.png").width > 400
    assert "CIDEr" in capsys.readouterr().out
    assert (out / "results.md").read_text().count("\n") >= 5


def test_evaluate_on_a_manifest_and_on_another_split(runs, pictures, tmp_path, monkeypatch):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    manifest = folder / "set.jsonl"
    rows = [
        {"image": str(p.relative_to(folder)), "captions": ["a red circle", "there is a shape here"]}
        for p in sorted(folder.rglob("*.png")) + sorted(folder.rglob("*.jpg"))
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    for data, count in ((manifest, 3), ("test", 20)):
        call(monkeypatch, evaluate, "--checkpoint", runs / "guiding", "--data", data,
             "--guidance", "1", "--out", tmp_path / "out")  # fmt: skip
        assert len((tmp_path / "out" / "captions.jsonl").read_text().splitlines()) == count


def test_evaluate_leaves_out_bad_records_up_to_a_fraction(runs, pictures, tmp_path, monkeypatch):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "broken.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:200])
    good = [{"image": str(p), "captions": ["a red circle"]} for p in folder.rglob("*.png")]
    bad = [{"image": "broken.jpg", "captions": ["a blue star"]}, {"image": "absent.png"}]
    manifest = folder / "set.jsonl"
    manifest.write_text("\n".join(map(json.dumps, good + bad)))
    args = ["--checkpoint", runs / "guiding", "--data", manifest, "--guidance", "1"]
    with pytest.raises(UserError, match=r"set\.jsonl"):
        call(monkeypatch, evaluate, *args)
    call(monkeypatch, evaluate, *args, "--max-bad-fraction", "0.5", "--out", tmp_path / "out")
    assert len((tmp_path / "out" / "captions.jsonl").read_text().splitlines()) == 2
    assert "were left out" in (tmp_path / "out" / "results.json").read_text()


def test_evaluate_runs_an_encoders_retrieval(runs, monkeypatch, tmp_path):
    call(monkeypatch, evaluate, "--checkpoint", runs / "contrastive", "--json", tmp_path / "r.json")
    metrics = json.loads((tmp_path / "r.json").read_text())["metrics"]
    assert 0 <= metrics["text_to_image_recall_at_1"] <= metrics["text_to_image_recall_at_10"] <= 1


def test_caption_writes_a_line_for_each_picture_and_scale(runs, pictures, tmp_path, monkeypatch):
    out = tmp_path / "captions.jsonl"
    call(monkeypatch, caption, "--checkpoint", runs / "guiding", "--images", pictures,
         "--guidance", "0,1,2.5", "--batch-size", 2, "--out", out)  # fmt: skip
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 9
    assert [line["image"] for line in lines[::3]] == sorted(
        str(p) for p in pictures.rglob("*") if p.suffix in (".png", ".jpg")
    )
    assert len({line["caption"] for line in lines if line["guidance_scale"] == 0}) == 1
    assert all(line["log_prob"] < 0 for line in lines)
    fields = ["image", "guidance_scale", "caption", "log_prob", "score", "truncated"]
    assert all(list(line) == fields for line in lines)


def test_caption_prints_where_there_is_no_out(runs, pictures, monkeypatch, capsys):
    call(monkeypatch, caption, "--checkpoint", runs / "guiding", "--images", pictures / "a.png",
         "--beams", 2, "--max-length", 4, "--prompt", "there is")  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["image"] for line in lines] == [str(pictures / "a.png")]
    assert json.loads(lines[0])["caption"].startswith("there is")


def test_caption_fills_a_folder_from_two_hosts_as_from_one(
    runs, pictures, tmp_path, monkeypatch, capsys
):
    manifest = tmp_path / "set.jsonl"
    paths = sorted(p for p in pictures.rglob("*") if p.suffix in (".png", ".jpg"))
    rows = [{"image": str(p.relative_to(pictures)), "caption": "a", "key": f"{p.stem} {n}"}
            for n in range(3) for p in paths]  # fmt: skip
    manifest.write_text("\n".join(map(json.dumps, rows)))
    args = ["--checkpoint", runs / "guiding", "--data", manifest, "--data-fields", "limit=7",
            f"image_root={pictures}", "--part-size", 2, "--samples", 2, "--temperature", 0.8,
            "--guidance", "1,2"]  # fmt: skip
    for out, shards in (("one", ["0/1"]), ("two", ["1/2", "0/2"])):
        for shard in shards:
            call(monkeypatch, caption, *args, "--out", tmp_path / out, "--shard", shard)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()}
                for out in ("one", "two"))  # fmt: skip
    assert one == two
    assert sorted(one) == [*(f"part-0000{i}.jsonl" for i in range(4)), "settings.json"]
    lines = [
        json.loads(x) for name in sorted(one) for x in one[name].splitlines() if "part" in name
    ]
    assert [(x["image"], x["guidance_scale"], x["sample"]) for x in lines] == [
        (row["key"], scale, k) for row in rows[:7] for scale in (1.0, 2.0) for k in (0, 1)
    ]
    capsys.readouterr()
    # Once more, for nothing; then otherwise, which is refused.
    call(monkeypatch, caption, *args, "--out", tmp_path / "one", "--batch-size", 3)
    told = capsys.readouterr().err
    assert "4 parts of 7 pictures, of which 0 could not be used; 4 parts were there" in told
    with pytest.raises(UserError, match=r"other settings \(temperature: 0.8 there, 0.5 now\)"):
        call(monkeypatch, caption, *args, "--out", tmp_path / "one", "--temperature", 0.5)
    with pytest.raises(UserError, match=r"seed: 0 there, 1 now"):
        call(monkeypatch, caption, *args, "--out", tmp_path / "one", "--seed", 1)
    assert one == {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()}


def test_caption_chooses_the_best_sample_by_an_encoder(runs, pictures, tmp_path, monkeypatch):
    out = tmp_path / "captions"
    call(monkeypatch, caption, "--checkpoint", runs / "guiding", "--images", pictures,
         "--samples", 3, "--best-of", "clipscore", "--encoder", runs / "contrastive",
         "--out", out, "--format", "parquet")  # fmt: skip
    table = pq.read_table(out / "part-00000.parquet").to_pylist()
    assert len(table) == 3
    assert all(0 <= row["clipscore"] <= 2.5 for row in table)
    assert json.loads((out / "settings.json").read_text())["best_of"] == "clipscore"


def test_a_broken_picture_is_skipped_up_to_the_fraction(
    runs, pictures, tmp_path, monkeypatch, caplog
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((pictures / "b.jpg").read_bytes()[:200])
    args = ["--checkpoint", runs / "guiding", "--images", pictures, broken, "--out"]
    args.append(tmp_path / "o.jsonl")
    with pytest.raises(UserError, match=r"1 of 4 records could not be used .*broken\.jpg"):
        call(monkeypatch, caption, *args)
    assert not list(tmp_path.glob("o*")), "a run that stops leaves no half of a file"
    call(monkeypatch, caption, *args, "--max-bad-fraction", "0.3")
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 3
    assert "broken.jpg" in caplog.text
    bad = json.loads((tmp_path / "o.bad.jsonl").read_text())
    assert bad["image"] == str(broken)
    assert bad["error"].startswith("cannot be decoded")
    call(monkeypatch, caption, *args[:4], *args[5:])
    assert not (tmp_path / "o.bad.jsonl").exists(), "of an earlier run"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--guidance", "-1"], r"guidance_scale \(gamma\) is -1"),
        (["--guidance", "nan"], r"guidance_scale \(gamma\) is nan"),
        (["--guidance", "two"], "cannot read guidance scales"),
        (["--guidance", "1,1"], "given twice"),
        (["--images", "nowhere.jpg"], "no picture and no folder"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--part-size", "0"], "--part-size is 0"),
        (["--beams", "0"], "num_beams=0"),
        (["--length-penalty", "2"], "--length-penalty is about beams"),
        (["--samples", "0"], "samples=0"),
        (["--top-p", "0.9"], "--top-p is about drawing captions at random: add --samples"),
        (["--best-of", "likelihood"], "--best-of chooses among samples"),
        (["--encoder", "nowhere"], "go together"),
        (["--seed", "-1"], "--seed is -1"),
        (["--shard", "2/2"], "--shard is '2/2'"),
        (["--shard", "0/2"], "need a folder"),
        (["--format", "parquet"], "need a folder"),
        (["--out", "captions.csv"], "ends with .jsonl, or a folder"),
        (["--data", "captions.jsonl"], "either --images with paths or --data"),
        (["--prompt", "there is a large red circle " * 9], "leaves no room"),
    ],
)
def test_caption_names_what_is_wrong(args, message, runs, pictures, monkeypatch):
    given = {"--checkpoint": runs / "guiding", "--images": pictures}
    given |= dict([args])
    with pytest.raises(UserError, match=message):
        call(monkeypatch, caption, *[part for pair in given.items() for part in pair])


def test_an_encoder_writes_no_captions(runs, pictures, monkeypatch):
    with pytest.raises(UserError, match="writes no captions"):
        call(monkeypatch, caption, "--checkpoint", runs / "contrastive", "--images", pictures)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--evals", "speed"], "no evaluator 'speed'"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "dev"], "dev"),
        (["--encoder", "nowhere"], "nowhere"),
    ],
)
def test_evaluate_names_what_is_wrong(args, message, runs, monkeypatch):
    with pytest.raises(UserError, match=message):
        call(monkeypatch, evaluate, "--checkpoint", runs / "guiding", *args)


def test_guiding_an_undropped_run_warns(runs):
    from capjax.decode.guidance import warn_if_untrained
    from capjax.runs import open_run

    config = open_run(runs / "guiding").config
    warn_if_untrained(config, [2.0])  # trained with m = 0.5: nothing to say
    with config.unlocked():
        config.task.conditioning_dropout = 0.0
    with pytest.warns(UserWarning, match="never trained"):
        warn_if_untrained(config, [1.0, 2.0])


@pytest.mark.parametrize("module", ["train", "evaluate", "caption", "reproduce"])
def test_help_is_quick_to_read(module):
    done = subprocess.run(
        [sys.executable, "-m", f"capjax.{module}", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert f"python -m capjax.{module}" in done.stdout


def test_a_mistake_ends_in_one_sentence_and_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "capjax.caption", "--checkpoint", "nowhere", "--images", "nothing"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("\n") == 0

"""Runs read, compared, drawn: from the files that training leaves."""

import json

import pytest
from PIL import Image

from capjax.errors import UserError
from capjax.report.__main__ import main
from capjax.report.runs import differing, metrics_of, read_runs
from capjax.report.runs_table import grid


def write_run(directory, learning_rate, losses, recalls=()):
    """A run as `capjax.train` leaves it, without checkpoints."""
    directory.mkdir(parents=True)
    config = {"steps": 40, "optimizer": {"learning_rate": learning_rate, "b1": 0.9}}
    (directory / "config.json").write_text(json.dumps(config))
    lines = [{"step": 10 * (i + 1), "loss": loss} for i, loss in enumerate(losses)]
    lines += [{"step": 20 * (i + 1), "evals/r/recall": r} for i, r in enumerate(recalls)]
    text = "\n".join(json.dumps(line) for line in lines)
    (directory / "metrics.jsonl").write_text(text + '\n{"step": 90, "lo')
    return directory


@pytest.fixture
def directories(tmp_path):
    return [
        write_run(tmp_path / "runs" / "a", 1e-3, [3.0, 1.5, 2.0, None], [0.4, 0.3]),
        write_run(tmp_path / "runs" / "b<i>", 3e-4, [2.5, 2.25]),
    ]


def test_last_and_best_values_and_what_differs(directories):
    runs = read_runs(directories)
    assert [run.name for run in runs] == ["a", "b<i>"]
    assert [run.step for run in runs] == [40, 20]
    assert runs[0].best("loss") == (20, 1.5)
    assert runs[0].best("evals/r/recall") == (20, 0.4)
    assert differing(runs) == ["optimizer.learning_rate"]
    assert metrics_of(runs) == ["loss", "evals/r/recall"]
    assert grid(runs, metrics_of(runs)) == [
        ["run", "step", "optimizer.learning_rate", "loss", "evals/r/recall"],
        ["a", "40/40", "0.001", "2 (1.5 @20)", "0.3 (0.4 @20)"],
        ["b<i>", "20/40", "0.0003", "2.25", "–"],
    ]


def test_the_command_draws_and_compares(directories, tmp_path, capsys):
    main([*map(str, directories), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "2 (1.5 @20)" in said
    picture = Image.open(tmp_path / "out" / "curves.png")
    assert picture.width > 2 * 400  # two panels
    page = (tmp_path / "out" / "report.html").read_text()
    assert "b&lt;i&gt;" in page
    assert "b<i>" not in page
    assert "data:image/png;base64," in page


def test_what_cannot_be_shown_is_named(directories, tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match=r"no metric is found by 'cider'; there are loss, evals/r"):
        main([str(directories[0]), "--metrics", "cider"])
    with pytest.raises(UserError, match="not a regular expression"):
        main([str(directories[0]), "--metrics", "("])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        main([str(directories[0]), "--out", str(tmp_path / "file" / "out")])

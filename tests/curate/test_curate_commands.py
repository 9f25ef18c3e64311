"""The commands: a run, its report and page, what differs between two, and how mistakes end."""

import json
import sys

import pytest

from capjax.curate import __main__ as commands

PIPELINE = "configs/curate/clean_captions.py"


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(Path(__file__).parents[2])


@pytest.fixture
def scenes(tmp_path):
    path = tmp_path / "scenes.json"
    section = {"name": "capjax.data.scenes", "image_size": 16, "captions": {"human": 2}}
    path.write_text(json.dumps(section))
    return str(path)


def command(monkeypatch, *words):
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["curate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    return ended.value.code


def test_run_report_and_diff(tmp_path, scenes, monkeypatch, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    source = ("--input", scenes, "size=60", "--part-size", "20")
    assert command(monkeypatch, "run", PIPELINE, *source, "--output", a) == 0
    assert "3 of 3 parts of 60 records" in capsys.readouterr().err
    assert command(monkeypatch, "run", f"{PIPELINE}:most=6", *source, "--output", b) == 0
    capsys.readouterr()
    assert command(monkeypatch, "report", a, "--after", "caption") == 0
    told = capsys.readouterr().out
    assert "each caption" in told
    assert "120" in told
    page = (a / "report.html").read_text()
    assert "<article>" in page
    assert "scenes-0-train-" in page
    assert command(monkeypatch, "diff", a, b) == 0
    told = capsys.readouterr().out
    assert "most: 40 there, 6 now" in told
    assert "0 changed" in told
    assert command(monkeypatch, "run", f"{PIPELINE}:most=6", *source, "--output", a) == 2
    assert "another pipeline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "nothing.py", "--input", "{scenes}", "--output", "{tmp}/o"), "does not exist"),
        (("run", PIPELINE, "--input", "x.y", "--output", "{tmp}/o"), "cannot tell what source"),
        (("run", PIPELINE + ":mots=3", "--input", "{scenes}", "--output", "{tmp}/o"), "'mots'"),
        (("report", "{tmp}"), "is no output of a pipeline"),
        (
            ("run", PIPELINE, "--input", "{scenes}", "--output", "{tmp}/o", "--chunk", "0"),
            "--chunk",
        ),
    ],
)
def test_mistakes_end_in_one_sentence(words, told, tmp_path, scenes, monkeypatch, capsys):
    words = [word.format(tmp=tmp_path, scenes=scenes) for word in words]
    assert command(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_a_page_escapes_what_was_crawled(tmp_path, monkeypatch):
    from curating import Texts, pipeline, run

    from capjax.curate.report import report, write_page

    class Hostile(Texts):
        def __getitem__(self, index):
            text = "<script>alert(1)</script> & co"
            return {"key": f"<b>{index}</b>", "captions": [text]}

    run(pipeline(), tmp_path / "out", Hostile(30))
    write_page(report(tmp_path / "out"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>0" not in page


@pytest.mark.parametrize(("urls", "again"), [("abca", "1"), ("abcd", None)])
def test_records_with_the_same_url_are_counted(tmp_path, urls, again):
    from capjax.curate import local
    from capjax.curate.pipeline import Pipeline
    from capjax.curate.report import report
    from capjax.curate.stage import Stage

    class Pairs:
        def __len__(self):
            return len(urls)

        def __getitem__(self, i):
            return {"key": f"k{i}", "image_url": urls[i]}

    twice = Stage("twice", lambda: [{"n": 0}, {"n": 1}], {}, {"n": int})
    made = Pipeline(
        "urls", (twice,), ("key", "image_url", "n"), source={"key": str, "image_url": str}
    )
    local.run(made, Pairs(), tmp_path, options=local.Options(processes=1), progress=False)
    tables = report(tmp_path).tables
    assert tables["records"][1][-1] == "8"
    told = tables.get("met more than once")
    assert (told and told[1]) == (again and ["image_url", again])

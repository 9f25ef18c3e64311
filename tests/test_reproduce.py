"""The list of papers, and a paper's claims written where they are looked for."""

import json
import sys

import pytest

from capjax import reproduce
from capjax.errors import UserError

CLAIMS = """
from capjax.reproduce import Finding

def measured(setting):
    (setting.workdir / "trained").write_text(setting.data)
    return [Finding("sum", "one and one is two", "2", True, {"sum": 2.0})]

def missed(setting):
    return [Finding("miss", "it is three", "3", False, {"sum": 2.0}),
            Finding("note", "nothing", "none", None, {"list": [1, 0.5], "never": float("nan")})]

SCALES = {"small": (measured, missed)}
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    folder = tmp_path / "experiments" / "arithmetic"
    folder.mkdir(parents=True)
    (folder / "claims.py").write_text(CLAIMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # The real `experiments` may be imported already: look at this one instead.
    for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "experiments"]:
        del sys.modules[name]


def call(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["capjax.reproduce", *args])
    return reproduce.main()


def test_a_run_is_written_and_listed(repository, monkeypatch, capsys):
    assert call(monkeypatch, "--list") == 0
    assert "never run" in capsys.readouterr().out
    (repository / "work" / "arithmetic").mkdir(parents=True)
    assert call(monkeypatch, "arithmetic", "--workdir", "work", "--data", "here") == 1
    assert (repository / "work" / "arithmetic" / "trained").read_text() == "here"
    shown = capsys.readouterr().out
    for text in ("HOLDS  sum", "DOES NOT HOLD  miss", "REPORTED  note", "list [1, 0.5]"):
        assert text in shown
    record = json.loads(reproduce.results_path("arithmetic", "small").read_text())
    assert record["findings"][2]["measured"]["never"] is None
    assert [finding["holds"] for finding in record["findings"]] == [True, False, None]
    call(monkeypatch, "--list")
    assert "1 of 2 claims hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["geometry"], r"there is no .*geometry.*arithmetic"),
        (["arithmetic", "--scale", "paper"], "no scale 'paper': choose one of small"),
        ([], "name a paper"),
    ],
)
def test_mistakes_are_named(args, message, repository, monkeypatch):
    with pytest.raises(UserError, match=message):
        call(monkeypatch, *args)

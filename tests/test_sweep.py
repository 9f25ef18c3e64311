"""Sweeps: the points of `get_hyper()`, each run once, whatever interrupts."""

import json
import signal
import sys
import textwrap

import pytest

from capjax import sweep
from capjax.errors import UserError
from capjax.signals import RESTART

CONFIG = """
    from capjax import config as config_lib
    from capjax.sweep import each, product, together

    def get_config(arg=""):
        config_lib.parse_arg(arg)
        config = config_lib.base()
        config.steps = 3
        return config

    def get_hyper():
        return {points}
"""
PRODUCT = 'product(each("optimizer.learning_rate", 1e-4, 1e-3), each("seed", 0, 1))'


def config_file(tmp_path, points=PRODUCT):
    path = tmp_path / "sweeping.py"
    path.write_text(textwrap.dedent(CONFIG).format(points=points))
    return str(path)


def test_points_are_combined_in_order():
    a, b = sweep.each("a", 1, 2), sweep.each("b", "x", "y")
    assert sweep.product(a, b) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip
    assert sweep.together(a, b) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    with pytest.raises(UserError, match="axes of one length, not 2, 1"):
        sweep.together(a, [{"b": 1}])


def test_each_point_is_a_command(tmp_path):
    spec = config_file(tmp_path)
    runs = sweep.points(spec, tmp_path / "w", ["--config.steps=5"])
    assert [run.workdir.name for run in runs] == [
        "0-learning_rate=0.0001-seed=0",
        "1-learning_rate=0.0001-seed=1",
        "2-learning_rate=0.001-seed=0",
        "3-learning_rate=0.001-seed=1",
    ]
    assert runs[2].command[1:] == (
        *("-m", "capjax.train", "--config", spec, "--workdir", str(runs[2].workdir)),
        *("--config.steps=5", "--config.optimizer.learning_rate=0.001", "--config.seed=0"),
    )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ('each("optimizer.lr", 1)', "config.optimizer has no field 'lr'"),
        ("[]", "lists no point"),
    ],
)
def test_a_point_that_cannot_be_is_named_before_anything_starts(tmp_path, points, message):
    with pytest.raises(UserError, match=message):
        sweep.main(["--config", config_file(tmp_path, points), "--workdir", str(tmp_path / "w")])
    assert not (tmp_path / "w").exists()


def test_a_config_without_points_is_named(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("def get_config(): return {}")
    with pytest.raises(UserError, match="does not define get_hyper"):
        sweep.points(str(path), tmp_path)


STAND_IN = """
    import json, os, pathlib, signal, sys, time
    workdir = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir.parent / "started").open("a") as file:
        file.write(workdir.name[0])
    code = int(os.environ.get("CODE_" + workdir.name[0], 0))
    (workdir / "config.json").write_text(json.dumps({"steps": 3}))
    (workdir / "metrics.jsonl").write_text(json.dumps({"step": 3, "loss": 1.5}) + chr(10))
    if code == -15:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(30)
    sys.exit(code)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """In place of `python -m capjax.train`: notes that it ran, and ends with CODE_<index>."""
    script = tmp_path / "stand_in.py"
    script.write_text(textwrap.dedent(STAND_IN))
    real = sweep.points

    def points(*args):
        return [
            sweep.Point(p.workdir, (sys.executable, str(script), *p.command[3:]))
            for p in real(*args)
        ]

    monkeypatch.setattr(sweep, "points", points)
    arguments = ["--config", config_file(tmp_path), "--workdir", str(tmp_path / "w")]

    def call(*more):
        return sweep.main([*arguments, *more])

    call.started = lambda: (tmp_path / "w" / "started").read_text()
    call.workdir = tmp_path / "w"
    return call


def test_what_is_finished_is_not_run_again(stand_in, monkeypatch, capsys):
    monkeypatch.setenv("CODE_1", str(RESTART))
    assert stand_in() == RESTART  # and the same command goes on:
    assert stand_in.started() == "01"
    monkeypatch.setenv("CODE_1", "0")
    monkeypatch.setenv("CODE_2", "2")
    assert stand_in() == 1
    assert stand_in.started() == "01" + "123"
    said = capsys.readouterr()
    assert "2-learning_rate=0.001-seed=0 ended with code 2" in said.err
    assert said.out.count("1.5") == 4
    assert stand_in("--list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.startswith("done") for line in listed] == [True, True, False, True]
    monkeypatch.setenv("CODE_2", "0")
    assert stand_in("--index", "2") == 0
    assert stand_in() == 0
    assert stand_in.started() == "01" + "123" + "2"
    assert stand_in("--config.steps=9", "--index", "3") == 0  # another command is another run
    assert stand_in.started() == "01" + "123" + "2" + "3"
    with pytest.raises(UserError, match="the points 0 to 3"):
        stand_in("--index", "4")


def test_sigterm_is_passed_on(stand_in, monkeypatch):
    monkeypatch.setenv("CODE_0", str(-int(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("CODE_1", str(RESTART))
    assert stand_in() == RESTART
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (stand_in.workdir / "0-learning_rate=0.0001-seed=0" / "sweep_done.json").exists()
    done = json.loads("[]") if stand_in.started() == "01" else None
    assert done == []

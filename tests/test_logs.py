"""Metrics files survive kills; progress says the same on terminals and in files."""

import io
import json
import math
import pathlib

import numpy as np
import pytest

from capjax import logs
from capjax.errors import UserError
from capjax.logs import Clock, MetricsLog, Progress, read_metrics


def test_lines_beyond_the_step_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.write(step, {"loss": np.float32(step), "count": np.int64(2)})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]
    log = MetricsLog(path, step=2)
    log.write(3, {"loss": 0.5})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0, "count": 2},
        {"step": 2, "loss": 2.0, "count": 2},
        {"step": 3, "loss": 0.5},
    ]


def test_every_line_is_json(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write(1, {"a": math.nan, "b": np.float32(math.inf)})
    log.close()
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1, "a": null, "b": null}\n'


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        MetricsLog(tmp_path / "none" / "m.jsonl")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    progress = Progress(10, 4, stream)
    progress.update(5, 1.25)
    progress.say("step 5  an evaluator")
    progress.update(10, 0.5)
    progress.close()
    text = stream.getvalue()
    assert "10/10" in text
    assert "loss=0.5" in text
    assert "step 5  an evaluator\n" in text
    assert "100%" in text


def test_a_file_gets_lines_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(1000, 0, stream)
    for step in range(1, 1001):
        now[0] += 0.5
        progress.update(step, 2.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 20/1000  loss 2  2 steps/s  8:10 left"
    assert lines[-1] == "step 1000/1000  loss 2  2 steps/s  0:00 left"
    assert len(lines) == 50


def test_the_clock_leaves_out_compilation_and_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])

    def pass_time(seconds):
        now[0] += seconds

    clock = Clock(batch_size=8)
    pass_time(30)  # compilation
    clock.step_done()
    assert clock.read() == {}
    for _ in range(4):
        with clock.waiting():
            pass_time(0.25)
        pass_time(0.75)
        clock.step_done()
    with clock.paused():
        pass_time(100)
    assert clock.read() == {
        "step_seconds": 1.0,
        "input_wait_seconds": 0.25,
        "examples_per_second": 8.0,
    }
    assert clock.read() == {}


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_named(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log._file = open("/dev/full", "a")  # noqa: SIM115
    with pytest.raises(
        UserError, match=r"m.jsonl' at step 3: No space left .* start the run again"
    ):
        log.write(3, {"loss": 1.0})
    log.close()

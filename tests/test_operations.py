"""What watches over a run: lock, retention, watchdog, spikes, operations, traces, loggers."""

import json
import math
import os
import pathlib
import subprocess
import sys
import threading
import time
import types

import clip_flops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from capjax import flops
from capjax.errors import UserError
from capjax.logs import read_metrics
from capjax.models import clip
from capjax.retention import Policy
from capjax.signals import RESTART
from capjax.spikes import Guard
from capjax.startup import Startup, process_age
from capjax.tasks.contrastive import Task
from capjax.train import train
from capjax.watchdog import Watchdog
from capjax.workdir_lock import locked

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_last_and_the_best_are_kept():
    values = {10: 0.5, 20: 0.9, 30: 0.7, 40: math.nan}
    steps = [10, 20, 30, 40, 45]
    assert Policy(2).kept(steps) == {40, 45}
    assert Policy(1, best=1, values=values).kept(steps) == {20, 45}
    assert Policy(1, best=2, values=values).kept(steps) == {20, 30, 45}
    assert Policy(1, best=1, lower_is_better=True, values=values).kept(steps) == {10, 45}
    # A best one that is also the last takes no second place; of equal ones the later is better.
    assert Policy(1, best=1, values=values | {45: 0.9}).kept(steps) == {45}
    assert Policy(1, best=3).kept(steps) == {45}


def test_one_run_to_a_workdir(tmp_path):
    with locked(tmp_path / "run"):
        with (
            pytest.raises(UserError, match=rf"another run .*process {os.getpid()} on .*--workdir"),
            locked(tmp_path / "run"),
        ):
            pass
        with pytest.raises(UserError, match="another run trains in"):
            train(toy.get_config(), tmp_path / "run")
    with locked(tmp_path / "run"):
        pass


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path):
    script = (
        f"import sys, os; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom capjax.workdir_lock import locked\n"
        f"with locked(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {process.pid} on"), locked(tmp_path):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        pass


def test_a_stall_is_written_down_and_ends_the_process(tmp_path):
    said, left = [], threading.Event()
    codes = []

    def leave(code):
        codes.append(code)
        left.set()

    def stuck():
        left.wait(20)

    path = tmp_path / "stalled.txt"
    thread = threading.Thread(target=stuck)
    thread.start()
    with Watchdog(path, 0.2, exit_too=True, say=said.append, leave=leave) as watchdog:
        time.sleep(0.5)
        assert not said  # nothing is expected before the first step
        with watchdog.suspended():
            time.sleep(0.5)
        assert not said
        watchdog.beat()
        with watchdog.suspended():
            time.sleep(0.5)
        assert not said
        assert left.wait(20)
    thread.join()
    assert codes == [RESTART]
    assert len(said) == 1
    assert f"no step for 0.2 seconds: where each thread stands is in '{path}'" in said[0]
    assert "in stuck" in path.read_text()


def test_a_moving_run_is_left_alone(tmp_path):
    said = []
    with Watchdog(tmp_path / "stalled.txt", 0.4, say=said.append) as watchdog:
        for _ in range(8):
            watchdog.beat()
            time.sleep(0.1)
    assert not said
    assert not (tmp_path / "stalled.txt").exists()


def fed(guard, losses, first=1):
    return [guard.see(first + i, loss, ["a", "b"]) for i, loss in enumerate(losses)]


def test_a_spike_stands_out_of_median_and_mad(tmp_path):
    guard = Guard(tmp_path / "spikes.jsonl", 5, 4.0, "log")
    # Median 1.0, MAD 0.1: the limit of the step after the next is 1 + 4 * 1.4826 * 0.1.
    assert fed(guard, [0.9, 1.0, 1.1, 0.8, 1.2]) == [False] * 5
    assert guard.limit(6) == math.inf
    assert guard.limit(7) == pytest.approx(1.59304)
    assert fed(guard, [1.0, 1.59, 5.0, 0.9], first=6) == [False, False, True, False]
    (line,) = read_metrics(tmp_path / "spikes.jsonl")
    assert (line["step"], line["loss"], line["keys"]) == (8, 5.0, ["a", "b"])
    # Where the loss stays high, the limit follows.
    assert fed(guard, [5.0, 5.1, 4.9, 5.0, 5.1, 5.0, 5.0], first=10)[-2:] == [False, False]
    guard.close()


def test_a_guard_goes_on_where_it_was(tmp_path):
    rng = np.random.default_rng(0)
    losses = list(1 + 0.1 * rng.standard_normal(30))
    whole = Guard(tmp_path / "whole.jsonl", 4, 1.0, "log")
    expected = fed(whole, losses)
    first, second = (Guard(tmp_path / "cut.jsonl", 4, 1.0, "log") for _ in range(2))
    assert fed(first, losses[:17]) == expected[:17]
    saved = json.loads(json.dumps(first.state()))
    assert fed(first, losses[17:20], first=18) == expected[17:20]  # lost by a kill
    second.restore(saved)
    assert fed(second, losses[17:], first=18) == expected[17:]
    assert any(expected)
    assert read_metrics(tmp_path / "cut.jsonl") == read_metrics(tmp_path / "whole.jsonl")


def spiking(action):
    config = toy.get_config("steps=12")
    config.checkpoint.every = 1
    config.checkpoint.keep = 20
    # The loss hardly falls, so that about every second one is above the median of three.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule.end_fraction = 0.5
    config.spikes = {"window": 3, "deviations": 0.0, "action": action}
    return config


def test_a_spike_skips_the_update_and_nothing_else(tmp_path):
    train(spiking("skip"), tmp_path)
    skipped = {x["step"]: x["skipped"] for x in read_metrics(tmp_path / "metrics.jsonl")}
    spikes = [x["step"] for x in read_metrics(tmp_path / "spikes.jsonl")]
    assert spikes == [step for step, value in skipped.items() if value]
    assert 0 < len(spikes) < 10
    from capjax.checkpoint import Checkpoints
    from capjax.runs import open_run

    states = {step: open_run(tmp_path, step=step, use_ema=False).params for step in range(1, 13)}
    for step in range(2, 13):
        same = jax.tree.map(np.array_equal, states[step - 1], states[step])
        assert all(jax.tree.leaves(same)) == (step in spikes), step
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest == 12


def test_a_spike_stops_the_run(tmp_path):
    with pytest.raises(UserError, match=r"is a spike \(limit .*toy-.*config.spikes.action=skip"):
        train(spiking("stop"), tmp_path)
    (line,) = read_metrics(tmp_path / "spikes.jsonl")
    assert line["step"] >= 5  # three losses, and the next is on its way
    assert len(line["keys"]) == 8


SMALL = dict(
    image_layers=2,
    image_width=48,
    image_heads=3,
    patch_size=8,
    text_layers=3,
    text_width=32,
    text_heads=2,
    embedding_dim=20,
)


def test_operations_by_formula_are_those_of_the_paper_and_pencil():
    model = clip.Model(20, 7, 24, overrides=SMALL)
    shapes = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jnp.zeros((1, 24, 24, 3), jnp.uint8), jnp.zeros((1, 7), jnp.int32)
        )["params"]
    )
    batch = {
        "image": jax.ShapeDtypeStruct((6, 24, 24, 3), jnp.uint8),
        "tokens": jax.ShapeDtypeStruct((6, 7), jnp.int32),
    }
    task = Task(model=model)
    traced = jax.make_jaxpr(task.loss)(shapes, batch, jax.random.key(0))
    cosines = 2 * 6 * 6 * 20
    assert 3 * flops.products(traced.jaxpr) == clip_flops.training_flops(model, 6) + 3 * cosines


def test_operations_of_loops_branches_and_convolutions():
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32)

    def looped(x):
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, length=5)[0]

    def branched(x):
        return jax.lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, x)

    def remade(x):
        return jax.checkpoint(looped)(x)

    for function, count in ((looped, 5), (branched, 2), (remade, 5)):
        assert flops.products(jax.make_jaxpr(function)(x).jaxpr) == count * 2 * 8**3
    # 3 x 3 over 4 channels to 6, at 5 x 5 places of 2 pictures.
    convolved = jax.make_jaxpr(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )(jnp.zeros((2, 5, 5, 4)), jnp.zeros((3, 3, 4, 6)))
    assert flops.products(convolved.jaxpr) == 2 * (3 * 3 * 4) * (2 * 5 * 5 * 6)


def test_the_program_is_counted_over_all_devices_and_rates_need_a_peak():
    weights = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    compiled = jax.jit(lambda a, b: a @ b).lower(weights, weights).compile()
    assert flops.program_flops(compiled) == pytest.approx(2 * 64**3, rel=0.02)
    kind = types.SimpleNamespace
    assert flops.peak_flops(kind(device_kind="NVIDIA H100 80GB HBM3")) == 989.4e12
    assert flops.peak_flops(kind(device_kind="NVIDIA H100 PCIe")) == 756e12
    assert flops.peak_flops(kind(device_kind="TPU v5 lite")) == 197e12
    assert flops.peak_flops(kind(device_kind="TPU v5p")) == 459e12
    assert flops.peak_flops(kind(device_kind="cpu")) == 0
    with_peak = flops.Flops(formula=3e12, program=4e12, peak=10e12)
    assert with_peak.rates(2.0) == {
        "model_flops_per_second": 1.5e12,
        "mfu": 0.15,
        "program_flops_per_second": 2e12,
        "hfu": 0.2,
    }
    without = flops.Flops(formula=3e9, program=0, peak=0)
    assert without.rates(3.0) == {"model_flops_per_second": 1e9}
    assert str(without) == (
        "a step takes 3 GFLOP by formula; the peak of 'cpu' is not known, so there is no MFU"
    )


def test_a_range_of_steps_is_traced(tmp_path, capfd):
    config = toy.get_config("steps=6")
    config.profile = {"first_step": 3, "steps": 2}
    config.loggers.tensorboard = True
    train(config, tmp_path)
    said = capfd.readouterr().err
    assert "step 4: the profile is written" in said
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert "first step after" in said
    assert "so there is no MFU" in said
    tokens = [x.get("tokens_per_second") for x in read_metrics(tmp_path / "metrics.jsonl")]
    assert tokens[-1] > 0
    scalars = events(tmp_path / "tensorboard")
    losses = {x["step"]: x["loss"] for x in read_metrics(tmp_path / "metrics.jsonl")}
    assert scalars["loss"] == pytest.approx(losses)


def events(directory):
    """Name -> {step: value} of TensorBoard's files, read by their own format."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for path in directory.iterdir():
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += 16 + length
    return found


def test_weights_and_biases_gets_the_same_lines(tmp_path, monkeypatch):
    calls = []

    class Run:
        def log(self, values, step):
            calls.append((step, values))

        def finish(self):
            calls.append("finished")

    given = {}

    def init(**arguments):
        given.update(arguments)
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    config = toy.get_config("steps=2")
    config.loggers.wandb_project = "captions"
    train(config, tmp_path / "run")
    assert (given["project"], given["name"], given["resume"]) == ("captions", "run", "allow")
    assert given["config"]["optimizer"]["learning_rate"] == 0.01
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [step for step, _ in calls[:-1]] == [1, 2]
    assert [values["loss"] for _, values in calls[:-1]] == [line["loss"] for line in lines]
    assert calls[-1] == "finished"
    first = given["id"]
    config.steps = 3
    train(config, tmp_path / "run")
    assert given["id"] == first


def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = toy.get_config()
    config.loggers.wandb_project = "captions"
    with pytest.raises(UserError, match=r"wandb_project needs wandb: pip install 'capjax\[wandb"):
        train(config, tmp_path)
    config.loggers = {"tensorboard": True, "wandb_project": ""}
    with pytest.raises(UserError, match=r"pip install 'capjax\[tensorboard\]'"):
        train(config, tmp_path)


def test_the_time_to_the_first_step_is_broken_down(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    startup = Startup(2.0)
    for phase, seconds in (("data", 0.5), ("state", 1.0), ("data", 0.25)):
        now[0] += seconds
        startup.done(phase)
    assert str(startup) == "first step after 3.8 s: imports 2.0, data 0.8, state 1.0"
    assert process_age() > 0.1

"""The training loop: the same numbers however it is cut, sharded or stopped; and its errors."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import toy

from capjax import train as train_lib
from capjax.errors import UserError
from capjax.logs import MEASURED, read_metrics
from capjax.runs import open_run
from capjax.signals import Interrupted
from capjax.train import train

TESTS = pathlib.Path(__file__).resolve().parent


def config_with(**changes):
    """The toy config; `optimizer__b1=0.5` sets a field of a section."""
    config = toy.get_config()
    for name, value in changes.items():
        *sections, field = name.split("__")
        holder = config
        for section in sections:
            holder = holder[section]
        holder[field] = value
    return config


def parameters(directory, **kwargs):
    """Path -> array of the run's latest checkpoint."""
    params = open_run(directory, **kwargs).params
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def assert_identical(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def numbers(directory):
    """The metrics lines without what depends on the clock."""
    lines = read_metrics(directory / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of 8 steps with noise, moving average and evaluator, never stopped."""
    directory = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(eventful(), directory)
    return directory


def eventful(**changes):
    evals = {"norm": {"type": "toy", "every": 2}}
    return config_with(ema_decay=0.5, task__noise=0.1, evals=evals, **changes)


def test_it_learns_and_writes_what_it_did(tmp_path):
    result = train(config_with(steps=40, log_every=10), tmp_path)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert result.step == 40
    assert result.metrics["loss"] == lines[-1]["loss"]
    assert MEASURED - lines[-1].keys() == {"mfu", "hfu", "device_bytes", "device_peak_bytes"}
    assert lines[-1]["learning_rate"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["grad_norm"] > 0
    assert lines[-1]["param_norm"] > 0
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["39", "40"]


def test_evaluators_run_at_their_steps_on_the_average(undisturbed):
    values = {
        line["step"]: line["evals/norm/norm"]
        for line in read_metrics(undisturbed / "metrics.jsonl")
        if "evals/norm/norm" in line
    }
    assert sorted(values) == [2, 4, 6, 8]
    norm = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in parameters(undisturbed).values()))
    assert values[8] == pytest.approx(norm, rel=1e-6)
    raw = parameters(undisturbed, use_ema=False)
    assert any(not np.array_equal(raw[n], x) for n, x in parameters(undisturbed).items())


def test_the_same_seed_gives_the_same_run_and_another_does_not(undisturbed, tmp_path):
    train(eventful(), tmp_path / "again")
    assert_identical(parameters(undisturbed), parameters(tmp_path / "again"))
    assert numbers(undisturbed) == numbers(tmp_path / "again")
    train(eventful(seed=1), tmp_path / "other")
    assert numbers(undisturbed)[0]["loss"] != numbers(tmp_path / "other")[0]["loss"]


def test_stopping_again_and_again_changes_nothing(undisturbed, tmp_path):
    for step in (1, 3, 4, 8):  # 4: an evaluator is due; 8: the last step
        interrupt(eventful(), tmp_path, step)
    train(eventful(), tmp_path)
    assert_identical(parameters(undisturbed), parameters(tmp_path))
    assert numbers(undisturbed) == numbers(tmp_path)


def interrupt(config, directory, step):
    """Trains until a SIGINT that arrives during `step`."""
    real = train_lib.make_step

    def make_step(*args, **kwargs):
        train_step = real(*args, **kwargs)

        def stepping(state, batch):
            if int(state["step"]) + 1 == step:
                signal.raise_signal(signal.SIGINT)
            return train_step(state, batch)

        stepping.lower = train_step.lower
        return stepping

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_lib, "make_step", make_step)
        with pytest.raises(Interrupted) as stop:
            train(config, directory)
    assert (stop.value.step, stop.value.number) == (step, signal.SIGINT)


def test_a_finished_run_says_so_and_returns(undisturbed, capsys):
    before = parameters(undisturbed)
    started = time.monotonic()
    result = train(eventful(), undisturbed)
    assert time.monotonic() - started < 2
    assert "is finished" in capsys.readouterr().err
    assert result.step == 8
    assert_identical(before, parameters(undisturbed))


def start(workdir, *overrides, config="toy.py"):
    """`python -m capjax.train` on the toy config, as a process of its own."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "capjax.train", "--config", str(TESTS / config)]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir), *overrides],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process, workdir, step):
    """Returns once the run has logged `step`; fails if it ends before."""
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in read_metrics(workdir / "metrics.jsonl")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the run does not move"
        time.sleep(0.005)


LONG = ("--config.steps=40", "--config.data.train={'name': 'toy', 'slow': 0.01}")


def test_a_signal_saves_and_says_how_to_go_on(tmp_path):
    """Ctrl-C; SIGTERM in test_training_kills and test_preemption."""
    process = start(tmp_path, *LONG)
    wait_for_step(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    step = int(errors.split("saved step ")[1].split(" ")[0])
    assert f"python -m capjax.train --config {TESTS / 'toy.py'} --workdir {tmp_path}" in errors
    assert "Traceback" not in errors
    assert max(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == step
    assert step == read_metrics(tmp_path / "metrics.jsonl")[-1]["step"]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    config = config_with(data__train={"name": "toy", "poison": 5}, checkpoint__every=1)
    with pytest.raises(UserError, match="toy-5") as stop:
        train(config, tmp_path)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    step = json.loads((tmp_path / "bad_batch.json").read_text())["step"]
    assert f"step {step}: loss nan" in str(stop.value)
    assert [line["step"] for line in lines] == list(range(1, step))
    latest = max((int(p.name) for p in (tmp_path / "checkpoints").iterdir()), default=0)
    assert latest == step - 1
    if latest:
        assert f"checkpoint is of step {latest}" in str(stop.value)
        assert all(np.isfinite(x).all() for x in parameters(tmp_path).values())


def test_accumulation_gives_the_numbers_of_the_whole_batch(tmp_path):
    for steps in (1, 2, 4):
        # No adaptive optimiser: it would blow rounding up where a gradient is nearly zero.
        config = config_with(steps=3, accumulate_steps=steps, optimizer__name="sgd")
        train(config, tmp_path / str(steps))
    whole, lines = parameters(tmp_path / "1"), numbers(tmp_path / "1")
    for steps in ("2", "4"):
        for name, value in parameters(tmp_path / steps).items():
            np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-6, err_msg=name)
        for line, expected in zip(numbers(tmp_path / steps), lines, strict=True):
            for name in ("loss", "grad_norm", "weight", "param_norm"):
                assert line[name] == pytest.approx(expected[name], rel=1e-5), name


def test_eight_devices_train_like_one(tmp_path):
    common = {"steps": 3, "optimizer__name": "sgd", "ema_decay": 0.5, "task__noise": 0.1}
    train(config_with(**common), tmp_path / "one")
    one = parameters(tmp_path / "one")
    for data, fsdp in ((8, 1), (1, 8), (2, 4)):
        directory = tmp_path / f"{data}x{fsdp}"
        train(config_with(mesh={"data": data, "fsdp": fsdp}, **common), directory)
        for name, value in parameters(directory).items():
            np.testing.assert_allclose(value, one[name], rtol=1e-5, atol=1e-6, err_msg=name)
        for line, expected in zip(numbers(directory), numbers(tmp_path / "one"), strict=True):
            for name, value in line.items():
                assert value == pytest.approx(expected[name], rel=1e-5), name


def test_a_run_goes_on_with_another_number_of_devices(undisturbed, tmp_path):
    interrupt(eventful(mesh={"data": 2, "fsdp": 4}), tmp_path, 5)
    train(eventful(mesh={"data": 1, "fsdp": 1}), tmp_path)
    expected = numbers(undisturbed)[-1]["evals/norm/norm"]
    assert numbers(tmp_path)[-1]["evals/norm/norm"] == pytest.approx(expected, rel=1e-3)


def test_init_from_starts_at_another_runs_parameters(undisturbed, tmp_path):
    config = config_with(steps=1, init_from=str(undisturbed), optimizer__learning_rate=0.0)
    config.optimizer.weight_decay = 0.0
    train(config, tmp_path)
    assert_identical(parameters(undisturbed), parameters(tmp_path))
    assert (tmp_path / "tokenizer.model").read_bytes() == (
        undisturbed / "tokenizer.model"
    ).read_bytes()


def test_bad_records_are_counted_and_resumed(tmp_path):
    config = config_with(
        steps=12, data__train={"name": "toy", "bad": (3, 9)}, data__max_bad_fraction=0.05
    )
    train(config, tmp_path / "undisturbed")
    interrupt(config, tmp_path / "stopped", 7)
    train(config, tmp_path / "stopped")
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "undisturbed")
    assert numbers(tmp_path / "stopped")[-1]["bad_records"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": {"name": "toy", "bad": (3, 9)}}, "toy-"),
        ({"mesh__data": 3}, "batch_size=8"),
        ({"mesh__data": 16}, "needs 16 devices, but there are 8"),
        ({"mesh__fsdp": 3, "mesh__data": -1}, "3 does not divide the 8 devices"),
        ({"accumulate_steps": 3}, "accumulate_steps=3"),
        ({"task__nois": 0.1}, "'nois'.*did you mean 'noise'"),
        ({"model__name": "toyy"}, "'toyy', which cannot be found"),
        ({"model__name": "capjax.errors"}, "'capjax.errors' offers no 'Model'"),
        ({"model__name": ""}, "config.model names no module"),
        ({"model__vocab_size": 3}, "config.model.vocab_size is set by the loop"),
        ({"evals": {"a": {"type": "toy", "lable": "x"}}}, "config.evals.a has a field 'lable'"),
        ({"optimizer__name": "adamm"}, "unknown config.optimizer.name 'adamm'"),
        ({"optimizer__name": "adam"}, "adam has no weight decay"),
        ({"optimizer__schedule__name": "cos"}, "schedule.name 'cos'"),
        ({"optimizer__schedule__warmup_steps": 9}, "warmup_steps=9"),
        ({"sharding": (("(", "fsdp"),)}, "is not a regex"),
        ({"init_from": "/nowhere"}, "not a run directory"),
        ({"steps": 0}, "config.steps must be at least 1"),
        ({"ema_decay": 1.0}, "config.ema_decay"),
        ({"data__long_captions": "cut"}, "long_captions"),
    ],
)
def test_a_mistake_is_named(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train(config_with(**changes), tmp_path)


def test_a_mended_config_can_be_tried_again(tmp_path):
    with pytest.raises(UserError, match="nois"):
        train(config_with(task__nois=0.1), tmp_path)
    assert train(config_with(steps=1), tmp_path).step == 1


def test_a_workdir_of_another_config_is_refused(undisturbed):
    with pytest.raises(UserError, match=r"optimizer.b1: 0.9 -> 0.5.*choose another --workdir"):
        train(eventful(optimizer__b1=0.5), undisturbed)


def test_an_unwritable_workdir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        train(config_with(), tmp_path / "file" / "run")


def test_a_thread_can_train(tmp_path):
    """Signal handlers belong to the main thread; elsewhere the loop does without."""
    thread = threading.Thread(target=train, args=(config_with(steps=1), tmp_path))
    thread.start()
    thread.join()
    assert (tmp_path / "checkpoints" / "1").is_dir()


def test_the_command_line(tmp_path, capsys):
    config = str(TESTS / "toy.py")
    assert train_lib.main(["--config", f"{config}:steps=2", "--workdir", str(tmp_path)]) == 0
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 2
    with pytest.raises(UserError, match=r"config.optimizer has no field 'lr'"):
        train_lib.main(["--config", config, "--workdir", "x", "--config.optimizer.lr=1"])
    with pytest.raises(UserError, match="cannot read '--stepss=3'"):
        train_lib.main(["--config", config, "--workdir", "x", "--stepss=3"])
    with pytest.raises(SystemExit):
        train_lib.main(["--help"])
    assert "FILE.py[:ARG]" in capsys.readouterr().out

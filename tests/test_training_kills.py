"""A run that is killed again and again ends with exactly the numbers of one that was not.

SIGKILL and SIGTERM by turns, while it steps, evaluates or writes a checkpoint. CAPJAX_KILLS says
how often; with CAPJAX_KILLS=100 it takes some ten minutes of one core.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import jax
import numpy as np
from train_until_killed import get_config

from capjax.checkpoint import Checkpoints, replicated
from capjax.logs import MEASURED, read_metrics
from capjax.runs import open_run
from capjax.signals import RESTART
from capjax.train import train

KILLS = int(os.environ.get("CAPJAX_KILLS", "3"))  # each costs the start of a process
STEPS = 10 * KILLS + 20
TESTS = pathlib.Path(__file__).resolve().parent
DEADLINE = 900  # seconds without news from the run
SLOW = 0.02  # seconds to load a record, so that a run is killed before it is through


def start(workdir, evaluating):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "CAPJAX_EVALUATING": str(evaluating),
        # One device, as in the undisturbed run: sums in another order are other numbers.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    config = f"{TESTS / 'train_until_killed.py'}:steps={STEPS},slow={SLOW}"
    command = [sys.executable, "-m", "capjax.train", "--config", config, "--workdir", str(workdir)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def half_written(directory):
    return [path for path in directory.glob("*") if not path.name.isdigit()]


def wait_until(happens, process):
    """True once it does; False if the run ends before."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None:
        if happens():
            return True
        assert time.monotonic() < deadline, "the run does not move"
        time.sleep(0.0005)
    return False


def check_disk(directory, wanted):
    """Every checkpoint can be read whole, and there are no more than the policy says."""
    with Checkpoints(directory) as checkpoints:
        assert len(checkpoints.steps) <= 2 + 1 + 1, checkpoints.steps
        assert len(half_written(directory)) <= 1
        for step in checkpoints.steps:
            state, host = checkpoints.restore(wanted, step)
            assert int(state["step"]) == step == host["data"]["batches"]
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(state["params"]))


def lines(path):
    return [{k: v for k, v in x.items() if k not in MEASURED} for x in read_metrics(path)]


def test_kills_change_nothing(tmp_path):
    rng, hits = random.Random(KILLS), Counter()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(get_config(f"steps={STEPS}"), whole)
    with Checkpoints(whole / "checkpoints") as checkpoints:
        wanted = abstract_of(checkpoints)
    evaluating, saving = tmp_path / "evaluating", killed / "checkpoints"
    seen = 0
    while hits.total() < KILLS:
        evaluating.unlink(missing_ok=True)  # of a run that was killed there
        process = start(killed, evaluating)
        goes_on = wait_until(lambda before=seen: progress(killed) > before, process)
        assert goes_on, process.stderr.read()
        place = ("step", "evaluation", "checkpoint")[hits.total() % 3]
        time.sleep(rng.uniform(0, 0.3))
        if place == "evaluation":
            wait_until(evaluating.exists, process)
            time.sleep(rng.uniform(0, 0.1))
        elif place == "checkpoint":
            wait_until(lambda: saving.is_dir() and half_written(saving), process)
            time.sleep(rng.choice((0, 0.002, 0.01)))
        number = rng.choice((signal.SIGKILL, signal.SIGTERM))
        process.send_signal(number)
        code, errors = process.wait(DEADLINE), process.stderr.read()
        assert code == (RESTART if number == signal.SIGTERM else -number), errors
        where = "half-written" if saving.is_dir() and half_written(saving) else "whole"
        hits[place, signal.Signals(number).name, where] += 1
        check_disk(saving, wanted)
        seen = progress(killed)
    process = start(killed, evaluating)
    _, errors = process.communicate(timeout=DEADLINE + STEPS)
    assert process.returncode == 0, errors
    check_disk(saving, wanted)
    assert not half_written(saving)
    assert lines(killed / "metrics.jsonl") == lines(whole / "metrics.jsonl")
    assert lines(killed / "spikes.jsonl") == lines(whole / "spikes.jsonl") != []
    for use_ema in (False, True):
        first, second = (open_run(run, use_ema=use_ema).params for run in (whole, killed))
        jax.tree.map(np.testing.assert_array_equal, first, second)
    for place, count in sorted(hits.items()):
        print(count, *place)


def progress(workdir):
    return max((line["step"] for line in read_metrics(workdir / "metrics.jsonl")), default=0)


def abstract_of(checkpoints):
    """The shapes of the state that is there, on one device."""
    from capjax import runs
    from capjax.optimizers import make_optimizer, make_schedule
    from capjax.train_step import first_state

    run = open_run(checkpoints.directory.parent)
    config = run.config
    tx = make_optimizer(config.optimizer, make_schedule(config.optimizer, config.steps))
    task = runs.make_task(config, run.model)
    state = jax.eval_shape(lambda: first_state(task.init(jax.random.key(0)), tx, config.ema_decay))
    return replicated(state, jax.sharding.SingleDeviceSharding(jax.devices()[0]))

"""A notice to one of two processes: both save the same step, and one process with another mesh
goes on from it."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
import toy

from capjax.logs import read_metrics
from capjax.signals import RESTART
from capjax.train import train

TESTS = pathlib.Path(__file__).resolve().parent
STEPS = 400  # more than they come to


def start(workdir, index, port):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [
        sys.executable,
        "-m",
        "capjax.train",
        "--config",
        f"{TESTS / 'toy.py'}:steps={STEPS}",
    ]
    command += ["--workdir", str(workdir), "--config.mesh.data=1", "--config.mesh.fsdp=4"]
    command += ["--config.data.train={'name': 'toy', 'slow': 0.01}"]
    # Not stretched by the number of steps; the sign of a gradient of nearly zero decides nothing.
    command += ["--config.optimizer.schedule.name=constant", "--config.optimizer.epsilon=1e-3"]
    command += ["--coordinator", f"127.0.0.1:{port}", "--process-count", "2"]
    return subprocess.Popen(
        [*command, "--process-id", str(index)], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_a_notice_to_one_process_stops_both_at_one_step(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = [start(tmp_path / "run", index, port) for index in (0, 1)]
    try:
        deadline = time.monotonic() + 900
        while len(read_metrics(tmp_path / "run" / "metrics.jsonl")) < 2:
            assert all(process.poll() is None for process in there), there[0].communicate()
            assert time.monotonic() < deadline, "the run does not move"
            time.sleep(0.01)
        there[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=900)[1] for process in there]
    finally:
        for process in there:
            process.kill()
    assert [process.returncode for process in there] == [RESTART, RESTART], said
    step = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert all(f"saved step {step} of {STEPS}" in text for text in said)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, step + 1))  # written once

    config = toy.get_config(f"steps={step + 2}")
    config.data.train.slow = 0.01
    config.optimizer.schedule.name = "constant"
    config.optimizer.epsilon = 1e-3
    whole = train(config, tmp_path / "whole").metrics
    config.mesh = {"data": 2, "fsdp": 1}
    moved = train(config, tmp_path / "run").metrics
    for name in ("loss", "grad_norm", "param_norm"):
        assert moved[name] == pytest.approx(whole[name], rel=1e-5), name

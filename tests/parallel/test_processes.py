"""How processes find each other, from flags or a scheduler's environment, and who is missing."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest
from train_toy import config

from capjax.errors import UserError
from capjax.logs import MEASURED, read_metrics
from capjax.parallel.processes import Peers, barrier, find_peers, first, is_first
from capjax.parallel.roll_call import roll_call
from capjax.train import train

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTHING = {"coordinator": None, "process_id": None, "process_count": None}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[007-010]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_a_process_of_which_nothing_is_said_is_alone():
    assert find_peers(NOTHING, {}) is None
    assert find_peers(NOTHING | {"process_count": 1}, {}) is None
    assert find_peers(NOTHING, SLURM | {"SLURM_NTASKS": "1"}) is None
    batch_script = {name: value for name, value in SLURM.items() if "STEP" not in name}
    assert find_peers(NOTHING, batch_script) is None
    assert is_first()
    assert first("nothing", lambda: 3) == 3
    barrier("nothing")


def test_flags_come_before_our_environment():
    given = {"coordinator": "a:1", "process_id": 1, "process_count": 2}
    ours = {"CAPJAX_COORDINATOR": "b:2", "CAPJAX_PROCESS_ID": "0", "CAPJAX_PROCESS_COUNT": "3"}
    assert find_peers(given, {}) == Peers("a:1", 1, 2)
    assert find_peers(NOTHING, ours) == Peers("b:2", 0, 3)
    assert find_peers(NOTHING | {"process_id": 2}, ours) == Peers("b:2", 2, 3)


def test_slurm_is_found_out(monkeypatch):
    for name, value in SLURM.items():  # JAX reads it in its own way
        monkeypatch.setenv(name, value)
    peers = find_peers(NOTHING, SLURM)
    host, port = peers.coordinator.split(":")
    assert (host, peers.index, peers.count, peers.devices) == ("node007", 2, 4, None)
    assert int(port) > 2**15
    shared_node = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}
    assert find_peers(NOTHING, shared_node).devices == (1,)


def test_open_mpi_and_kubernetes_give_numbers():
    mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
    assert find_peers(NOTHING | {"coordinator": "a:1"}, mpi) == Peers("a:1", 1, 2)
    job = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}
    rest = {"CAPJAX_COORDINATOR": "a:1", "CAPJAX_PROCESS_COUNT": "4"}
    assert find_peers(NOTHING, job | rest) == Peers("a:1", 3, 4)


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ({"coordinator": "a:1"}, {}, "give --process-id or CAPJAX_PROCESS_ID"),
        ({"process_id": 0, "process_count": 2}, {}, "give --coordinator or CAPJAX_COORDINATOR"),
        ({"coordinator": "a:1", "process_id": 2, "process_count": 2}, {}, "0 to 1"),
        ({}, {"CAPJAX_PROCESS_ID": "one"}, "must be numbers"),
    ],
)
def test_what_cannot_be_is_named(given, environment, message):
    with pytest.raises(UserError, match=message):
        find_peers(NOTHING | given, environment)


def call_roll(port, *members, timeout=20.0):
    """What each of `members` (index, count) is told, by number: hosts, or an error."""
    told = {}

    def member(place, index, count):
        try:
            told[place] = roll_call(f"localhost:{port}", index, count, timeout)
        except UserError as error:
            told[place] = str(error)

    threads = [threading.Thread(target=member, args=(i, *m)) for i, m in enumerate(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [told[place] for place in range(len(members))]


def test_the_roll_is_called_in_any_order(port):
    here = socket.gethostname()
    for members in (((0, 3), (1, 3), (2, 3)), ((2, 3), (1, 3), (0, 3))):  # and the port is free
        assert call_roll(port, *members) == [[here] * 3] * 3


def test_all_are_told_who_is_missing(port):
    told = call_roll(port, (0, 4), (2, 4), timeout=1.0)
    assert told[0] == told[1]
    assert told[0].startswith("processes 1, 3 of 4 did not come up within 1 s (there are: 0 on ")


def test_a_process_that_no_one_awaits_is_told(port):
    assert "process 1 of 2 heard nothing from process 0" in call_roll(port, (1, 2), timeout=0.5)[0]
    assert "two processes are number 1" in call_roll(port, (0, 3), (1, 3), (1, 3))[0]
    assert "started as one of 3, but process 0 as one of 2" in call_roll(port, (0, 2), (1, 3))[0]
    with pytest.raises(UserError, match="give process 0's host and a free port"):
        roll_call("localhost", 0, 2, 1.0)


def test_a_port_in_use_is_named(port):
    with socket.socket() as other:
        other.bind(("", port))
        other.listen()
        with pytest.raises(UserError, match=f"cannot listen on port {port}"):
            roll_call(f"localhost:{port}", 0, 2, 1.0)


def test_two_processes_train_like_one(port, tmp_path):
    """2 x 4 devices against 1 x 1: the log, the evaluator's values and the parameters."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        # Process 0 alone would have its programs at once and then wait for the other's.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    command = [
        sys.executable, str(ROOT / "tests" / "parallel" / "train_toy.py"), str(tmp_path / "two"),
        f"--coordinator=localhost:{port}", "--process-count=2",
    ]  # fmt: skip
    pair = [
        subprocess.Popen(
            [*command, f"--process-id={i}"], env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    errors = [process.communicate(timeout=600)[1] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], errors
    assert "step 6/6" in errors[0]
    assert "step 6/6" not in errors[1], "one process says how far the run is"
    missing = f"process 1 ({socket.gethostname()}) of 2 did not come to a meeting within 1 s"
    assert missing in errors[0]
    train(config(data=1), tmp_path / "one")
    two, one = (read_metrics(tmp_path / run / "metrics.jsonl") for run in ("two", "one"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for got, expected in zip(two, one, strict=True):
        assert got.keys() - MEASURED == expected.keys() - MEASURED
        for name in expected.keys() - MEASURED:
            assert got[name] == pytest.approx(expected[name], rel=1e-5), name
    assert json.loads((tmp_path / "two" / "config.json").read_text())["mesh"]["fsdp"] == 2

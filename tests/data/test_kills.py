"""A stream that is killed again and again is the stream that was not."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import loader_until_killed
import pytest

BATCHES = 400
KILLS = int(os.environ.get("CAPJAX_KILLS", "4"))  # each costs the start of a process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    loader_until_killed.main(folder, BATCHES)
    return loader_until_killed.complete_lines(folder / "stream.jsonl")


def start(folder):
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, loader_until_killed.__file__, str(folder), str(BATCHES)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(command, cwd=root, env=environment)


def test_kills_change_nothing(undisturbed, tmp_path):
    path, rng, kills = tmp_path / "stream.jsonl", random.Random(0), 0
    before = 0
    while kills < KILLS:
        process = start(tmp_path)
        # Wait until it writes, then let it go on for a random while.
        while process.poll() is None and size(path) <= before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.4 / KILLS))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills, before = kills + 1, size(path)
    assert kills >= min(KILLS, 3)
    assert len(path.read_text().splitlines()) < BATCHES
    assert start(tmp_path).wait() == 0
    assert loader_until_killed.complete_lines(path) == undisturbed
    assert len({key for line in undisturbed for key in line["keys"]}) > 300


def size(path):
    return path.stat().st_size if path.exists() else 0

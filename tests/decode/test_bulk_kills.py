"""A captioning job that is killed again and again leaves the bytes of one that was not."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import captions_until_killed
import pytest

KILLS = int(os.environ.get("CAPJAX_KILLS", "5"))  # each costs the start of a process
PARTS = 8 * KILLS
COUNT = PARTS * captions_until_killed.PART_SIZE - 1
BROKEN = range(2, COUNT, 11)


def start(pictures, out):
    root = pathlib.Path(__file__).parents[2]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "XLA_FLAGS": "",  # one device: quicker to begin
    }
    command = [sys.executable, captions_until_killed.__file__, str(pictures), str(out)]
    return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.DEVNULL)


def finished(out):
    return len(list(out.glob("part-*.jsonl")))


@pytest.fixture
def pictures(tmp_path):
    return captions_until_killed.draw_pictures(tmp_path / "pictures", COUNT, BROKEN)


def test_kills_change_nothing(pictures, tmp_path):
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    while kills < KILLS:
        process, before = start(pictures, out), finished(out)
        # Wait until it writes, then let it go on for a random while.
        while process.poll() is None and finished(out) <= before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == KILLS
    assert kills <= finished(out) < PARTS
    assert start(pictures, out).wait() == 0
    whole = tmp_path / "whole"
    assert start(pictures, whole).wait() == 0
    contents = [{p.name: p.read_bytes() for p in place.iterdir()} for place in (out, whole)]
    assert contents[0] == contents[1]
    rows = [
        json.loads(line)
        for name in sorted(contents[0])
        if name.startswith("part-")
        for line in contents[0][name].splitlines()
    ]
    names = [pathlib.Path(row["image"]).stem for row in rows]
    good = [f"{i:04}" for i in range(COUNT) if i not in BROKEN]
    assert names == [name for name in good for _ in range(4)]  # two scales, two samples

"""A run whose driver, workers and server are killed ends with each record once, paid for once."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import chat_server
import curate_until_killed
import pytest

from capjax.curate.finished import Finished

KILLS = int(os.environ.get("CAPJAX_KILLS", "3"))  # each costs the start of a process
RECORDS = int(os.environ.get("CAPJAX_KILLED_RECORDS", str(120 * KILLS)))
PART_SIZE = max(20, RECORDS // 100)
ROOT = pathlib.Path(__file__).parents[2]


def environment():
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    }


class Cast:
    """The driver and the server as processes."""

    def __init__(self, out, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.out, self.log = out, log
        self.server = self.driver = None

    def start_server(self):
        command = [
            sys.executable,
            chat_server.__file__,
            str(self.port),
            "0.03",
            "64",
            str(self.log),
        ]
        self.server = subprocess.Popen(command, env=environment())

    def start_driver(self):
        command = [sys.executable, curate_until_killed.__file__, str(self.port), str(self.out)]
        command += [str(RECORDS), str(PART_SIZE)]
        self.driver = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)

    def workers(self):
        found = []
        # A child is listed with the thread that began it.
        for place in pathlib.Path("/proc").glob(f"{self.driver.pid}/task/*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                for pid in place.read_text().split():
                    if b"spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
        return found

    def paid(self):
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def end(self):
        for process in (self.server, self.driver):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").is_dir(), reason="finds workers in /proc")
def test_kills_change_nothing(tmp_path):
    rng, kills = random.Random(0), Counter()
    cast = Cast(tmp_path / "killed", tmp_path / "log")
    cast.start_server()
    try:
        cast.start_driver()
        while sum(kills.values()) < KILLS:
            before = cast.paid()
            # Until it pays for calls, then a random while on.
            while cast.driver.poll() is None and cast.paid() <= before + 5:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            if cast.driver.poll() is not None:
                break
            target = ("driver", "worker", "server")[sum(kills.values()) % 3]
            if target == "worker" and cast.workers():
                os.kill(rng.choice(cast.workers()), signal.SIGKILL)
            elif target == "server":
                cast.server.kill()
                cast.server.wait()
                cast.start_server()
            else:
                target = "driver"
                orphans = cast.workers()
                cast.driver.kill()
                cast.driver.wait()
                cast.start_driver()
                wait_until_gone(orphans)
            kills[target] += 1
        assert sum(kills.values()) == KILLS
        assert cast.driver.wait(600) == 0
        killed = list(Finished(cast.out).rows())
        answered = Counter(json.loads(line) for line in cast.log.read_text().splitlines())

        whole = Cast(tmp_path / "whole", tmp_path / "log2")
        whole.port = cast.port
        cast.server.kill()
        cast.server.wait()
        whole.start_server()
        try:
            whole.start_driver()
            assert whole.driver.wait(600) == 0
        finally:
            whole.end()
    finally:
        cast.end()
    assert [row["key"] for row in killed] == [f"scene-{i:06}" for i in range(RECORDS)]
    for path in sorted(whole.out.glob("part-*.parquet")):
        assert (cast.out / path.name).read_bytes() == path.read_bytes()
    assert not list(cast.out.glob("bad-*"))
    once = Counter(json.loads(line) for line in whole.log.read_text().splitlines())
    assert set(once.values()) == {1}
    assert answered.keys() == once.keys()
    # Calls under way when the driver or the server was killed may have been answered in vain.
    in_vain = answered.total() - len(answered)
    assert in_vain <= (kills["driver"] + kills["server"]) * curate_until_killed.CONCURRENCY
    print(f"{RECORDS} records, kills {dict(kills)}, {len(answered)} calls, {in_vain} in vain")


def wait_until_gone(pids):
    """Workers end by themselves when their driver was killed."""
    ends = time.monotonic() + 10
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < ends, "a worker outlived its driver"
        time.sleep(0.01)

"""A plain list of hosts over ssh: one process a host, all from the same directory.

The first host coordinates. The directory, the environment and the workdir must be there on all of
them (a shared file system, or copies). ssh must ask for no password. Lines of output carry their
host's name. Ctrl-C or SIGTERM here becomes SIGTERM there, by the process id that each leaves in a
file: an ssh that merely ended would take the run's terminal away and leave it no time to save. When
one process is lost the others are stopped, since they would wait for it; with --restarts the run is
then started again as a whole.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capjax.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from capjax.launch.job import Job

GRACE = 60.0  # seconds to save, between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Host:
    """One host's part: the shell command that runs there, and where it leaves its process id."""

    name: str
    command: str
    pid_file: str

    def ssh(self, command: str) -> list[str]:
        """The words that run a command there."""
        return ["ssh", "-o", "BatchMode=yes", self.name, command]

    @property
    def words(self) -> list[str]:
        return self.ssh(self.command)

    def tell(self, name: str) -> None:
        """Sends the signal of this name (TERM, KILL) to the process there, if it lives."""
        command = f"kill -{name} $(cat {self.pid_file})"
        subprocess.run(self.ssh(command), stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def plan(job: Job, names: Sequence[str], directory: str, port: int) -> list[Host]:
    """What is to run where."""
    if not names:
        raise UserError("--hosts names no host: give them as a,b,c or with --hosts-file FILE")
    if len(set(names)) < len(names):
        raise UserError("--hosts names a host twice: one process a host uses all its devices")
    coordinator = f"{names[0].rpartition('@')[2]}:{port}"
    hosts = []
    for index, name in enumerate(names):
        flags = (
            f"--coordinator={coordinator}",
            f"--process-count={len(names)}",
            f"--process-id={index}",
        )
        pid_file = f"/tmp/{job.name}-{port}-{index}.pid"
        # exec keeps the shell's process id for the run.
        inner = job.with_setup(f"echo $$ > {pid_file} && exec {job.command(*flags)}")
        hosts.append(Host(name, f"cd {shlex.quote(directory)} && {inner}", pid_file))
    return hosts


def start(hosts: Sequence[Host], restarts: int) -> int:
    """Runs them to the end; 0, or the exit code of the one that failed first."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        for attempt in range(restarts + 1):
            if attempt:
                print(f"starting again ({attempt} of {restarts})", file=sys.stderr, flush=True)
            code = _once(hosts, stopped)
            # A user's mistake stays one however often it is tried.
            if stopped.is_set() or code in (0, EXIT_USER_ERROR, EXIT_INTERRUPTED):
                break
        return code
    finally:
        signal.signal(signal.SIGTERM, before)


def _once(hosts: Sequence[Host], stopped: threading.Event) -> int:
    processes = [
        subprocess.Popen(
            host.words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for us to pass on
        )
        for host in hosts
    ]
    echoes = [
        threading.Thread(target=_echo, args=(process.stdout, host.name))
        for process, host in zip(processes, hosts, strict=True)
    ]
    for echo in echoes:
        echo.start()
    try:
        while True:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code]
            if failed or stopped.is_set():
                _stop(hosts, processes)
                ended = [process.returncode for process in processes if process.returncode]
                return (failed or ended or [0])[0]
            if None not in codes:
                return 0
            stopped.wait(0.2)
    except KeyboardInterrupt:
        _stop(hosts, processes)
        return EXIT_INTERRUPTED
    finally:
        for echo in echoes:
            echo.join()


def _stop(hosts: Sequence[Host], processes: Sequence[subprocess.Popen]) -> None:
    """SIGTERM, time to save, SIGKILL."""
    for number in ("TERM", "KILL"):
        for host, process in zip(hosts, processes, strict=True):
            if process.poll() is None:
                host.tell(number)
        deadline = time.monotonic() + GRACE
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
    for process in processes:  # its host does not answer
        if process.poll() is None:
            process.kill()
            process.wait()


def _echo(stream: Any, host: str) -> None:
    for line in stream:
        print(f"[{host}] {line.rstrip()}", flush=True)

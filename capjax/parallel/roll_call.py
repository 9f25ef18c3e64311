"""Who is there, before JAX connects the processes of a run.

JAX's own start waits for all processes and then ends those that came with a stack trace, without a
name of the one that did not. So process 0 first calls the roll on the same port: each process says
its number, and all learn together whether everyone is there or who is missing.

One line of JSON each way: {"process", "count", "host"} and {"hosts"} or {"error"}.
Raises `UserError` that names the missing processes, a number given twice, or a port in use.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time

from capjax.errors import UserError

_REPORT_SECONDS = 20.0  # between two lines about who is awaited
_RETRY_SECONDS = 0.5
_GRACE_SECONDS = 5.0  # process 0 answers this much later than the time-out at most


def roll_call(coordinator: str, index: int, count: int, timeout: float) -> list[str]:
    """The host of each process, once all `count` of them have called this.

    coordinator: HOST:PORT of process 0; timeout: seconds to wait for the others.
    """
    host, port = _address(coordinator)
    if index == 0:
        return _call(host, port, count, timeout)
    return _answer(host, port, index, count, timeout)


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"the coordinator is {coordinator!r}: give process 0's host and a free port of it, "
            "such as node1:8476"
        )
    return host.strip("[]"), int(port)


def _call(host: str, port: int, count: int, timeout: float) -> list[str]:
    """Process 0: waits for the others and tells all of them how it went."""
    hosts = {0: socket.gethostname()}
    lines: dict[socket.socket, bytes] = {}
    answered: list[socket.socket] = []
    deadline = time.monotonic() + timeout
    reported = time.monotonic()
    error = ""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_listen(port))
        except OSError as failure:
            raise UserError(
                f"process 0 cannot listen on port {port} ({failure.strerror}): choose another "
                "port for the coordinator"
            ) from failure
        while len(hosts) < count and not error:
            now = time.monotonic()
            if now > deadline:
                error = _missing(hosts, count, timeout, f"{host}:{port}")
                break
            if now - reported > _REPORT_SECONDS:
                reported = now
                absent = _names(set(range(count)) - hosts.keys())
                print(f"waiting for {absent} of {count}: {deadline - now:.0f} s", file=sys.stderr)
            for ready in select.select([server, *lines], [], [], _RETRY_SECONDS)[0]:
                if ready is server:
                    connection = stack.enter_context(server.accept()[0])
                    lines[connection] = b""
                    continue
                data = _read(ready)
                lines[ready] += data
                if b"\n" in data:
                    error = error or _enter(lines.pop(ready), hosts, count)
                    answered.append(ready)
                elif not data:
                    del lines[ready]  # gone, or no process of ours
        told = {"error": error} if error else {"hosts": [hosts[i] for i in range(count)]}
        for connection in answered:
            with contextlib.suppress(OSError):
                connection.settimeout(_GRACE_SECONDS)
                connection.sendall(json.dumps(told).encode() + b"\n")
                connection.recv(1)  # they close first, so that the port is free at once
    if error:
        raise UserError(error)
    return told["hosts"]


def _enter(line: bytes, hosts: dict[int, str], count: int) -> str:
    """Notes a process; what is wrong with it, or ""."""
    try:
        said = json.loads(line)
        process, its_count, host = int(said["process"]), int(said["count"]), str(said["host"])
    except (ValueError, KeyError, TypeError):
        return ""  # not of a run
    if its_count != count:
        return (
            f"process {process} on {host} was started as one of {its_count}, but process 0 as one "
            f"of {count}: give all the same --process-count"
        )
    if process in hosts:
        return (
            f"two processes are number {process}, on {hosts[process]} and on {host}: give each "
            "its own --process-id"
        )
    hosts[process] = host
    return ""


def _answer(host: str, port: int, index: int, count: int, timeout: float) -> list[str]:
    """Any other process: says that it is there until process 0 has heard it, and is told."""
    said = {"process": index, "count": count, "host": socket.gethostname()}
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=max(left, 0.1)) as connection:
                connection.sendall(json.dumps(said).encode() + b"\n")
                connection.settimeout(max(left, 0.1) + _GRACE_SECONDS)
                line = b""
                while not line.endswith(b"\n"):
                    data = _read(connection)
                    if not data:
                        break
                    line += data
            told = json.loads(line) if line else {}
        except (OSError, ValueError):
            told = {}
        if "error" in told:
            raise UserError(told["error"])
        if "hosts" in told:
            return told["hosts"]
        if time.monotonic() > deadline:
            raise UserError(
                f"process {index} of {count} heard nothing from process 0 at {host}:{port} for "
                f"{timeout:g} s: see whether it runs, and whether this host reaches that port"
            )
        time.sleep(_RETRY_SECONDS)


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
        )
    return socket.create_server(("", port), backlog=1024)


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def _missing(hosts: dict[int, str], count: int, timeout: float, address: str) -> str:
    absent = sorted(set(range(count)) - hosts.keys())
    known = ", ".join(f"{i} on {hosts[i]}" for i in sorted(hosts)[:8])
    return (
        f"{_names(absent)} of {count} did not come up within {timeout:g} s (there are: {known}"
        f"{', ...' if len(hosts) > 8 else ''}): see their logs, and whether they reach {address}"
    )


def _names(processes) -> str:
    """{3, 5} -> "processes 3, 5"."""
    shown = ", ".join(map(str, sorted(processes)[:16])) + (", ..." if len(processes) > 16 else "")
    return f"process{'es' if len(processes) > 1 else ''} {shown}"

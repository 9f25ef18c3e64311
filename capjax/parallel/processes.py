"""Several processes as one run: how they find each other, wait, and share out what is done once.

Every command of capjax that uses devices starts here, before it touches any:

    process_flags.add(parser)            --coordinator, --process-id, --process-count
    processes.start(parser.parse_args())

Who is there is taken from the flags; else from CAPJAX_COORDINATOR, CAPJAX_PROCESS_ID and
CAPJAX_PROCESS_COUNT; what is missing then from SLURM, Open MPI, a Cloud TPU or a Kubernetes job, as
JAX reads them. A process that none of these says anything of is alone.

Raises `UserError` where the processes do not find each other, and says who is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax

from capjax.errors import UserError
from capjax.parallel.process_flags import START_SECONDS
from capjax.parallel.roll_call import roll_call

T = TypeVar("T")

_SHUTDOWN_SECONDS = 30  # a process that failed does not keep the others longer
_NAMES = {
    "coordinator": "CAPJAX_COORDINATOR",
    "process_id": "CAPJAX_PROCESS_ID",
    "process_count": "CAPJAX_PROCESS_COUNT",
}
_DONE = "done"
_calls = itertools.count()  # all processes count alike: each barrier has a name of its own


@dataclass(frozen=True)
class Peers:
    """This process among those of the run."""

    coordinator: str  # HOST:PORT of process 0
    index: int
    count: int
    devices: tuple[int, ...] | None = None  # of this host, where processes share it; None: all


def start(args: argparse.Namespace) -> None:
    """Joins the other processes, if there are any; `args` holds the flags of `process_flags`."""
    given = {name: getattr(args, name) for name in _NAMES}
    peers = find_peers(given, os.environ, args.start_timeout)
    if peers is not None:
        join(peers, args.start_timeout)


def find_peers(
    given: Mapping[str, Any], environ: Mapping[str, str], timeout: float = START_SECONDS
) -> Peers | None:
    """Where this process belongs, by flags (`given`) and environment; None if it is alone."""
    known = {
        name: value if value is not None else environ.get(_NAMES[name])
        for name, value in given.items()
    }
    around = _surroundings(environ)
    if not around and all(value is None for value in known.values()):
        return None
    known = _ranked(known, environ)
    try:
        index, count = (
            None if known[name] is None else int(known[name])
            for name in ("process_id", "process_count")
        )
    except ValueError as error:
        raise UserError(
            f"CAPJAX_PROCESS_ID and CAPJAX_PROCESS_COUNT must be numbers: {error}"
        ) from error
    coordinator = known["coordinator"]
    if around and None in (coordinator, index, count) and count != 1:
        coordinator, index, count = _detected(around, coordinator, index, count, timeout)
    if count == 1:
        return None
    values = {"coordinator": coordinator, "process_id": index, "process_count": count}
    for name, value in values.items():
        if value is None:
            raise UserError(
                f"this is one of several processes, but which is not known: give "
                f"--{name.replace('_', '-')} or {_NAMES[name]}"
            )
    if not 0 <= index < count:
        raise UserError(
            f"--process-id is {index} of {count}: give each process its number, 0 to {count - 1}"
        )
    return Peers(coordinator, index, count, _own_devices(environ))


def join(peers: Peers, timeout: float = START_SECONDS) -> None:
    """Connects the processes once all are there."""
    roll_call(peers.coordinator, peers.index, peers.count, timeout)
    jax.distributed.initialize(
        peers.coordinator,
        peers.count,
        peers.index,
        local_device_ids=peers.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(max(timeout, 10)),
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
    _client().key_value_set(f"capjax/host/{peers.index}", socket.gethostname())


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def barrier(name: str, timeout: float = 600.0) -> None:
    """Returns when all processes are here; UserError that names the missing ones after a while.

    `name` is what they come to do, for the message. All processes must pass their barriers in the
    same order.
    """
    if jax.process_count() == 1:
        return
    key = f"capjax/barrier/{next(_calls)}"
    client = _client()
    client.key_value_set(f"{key}/{jax.process_index()}", _DONE)
    try:
        client.wait_at_barrier(key, round(timeout * 1000))
    except jax.errors.JaxRuntimeError as error:
        here = {int(k.rpartition("/")[2]) for k, _ in client.key_value_dir_get(key)}
        hosts = dict(client.key_value_dir_get("capjax/host"))
        absent = [
            f"process {i} ({hosts.get(f'capjax/host/{i}', 'host unknown')})"
            for i in range(jax.process_count())
            if i not in here
        ]
        raise UserError(
            f"{', '.join(absent) or 'some process'} of {jax.process_count()} did not come to "
            f"{name} within {timeout:g} s: see its log"
        ) from error


def first(name: str, work: Callable[[], T], timeout: float = 3600.0) -> T | None:
    """Process 0 does `work`, the others wait until it is done; its result in process 0, else None.

    A UserError of process 0 is raised in all. `name` says what is done, for messages.
    """
    if jax.process_count() == 1:
        return work()
    key, client = f"capjax/first/{next(_calls)}", _client()
    if is_first():
        try:
            result = work()
        except UserError as error:
            client.key_value_set(key, str(error))
            raise
        client.key_value_set(key, _DONE)
        return result
    try:
        failure = client.blocking_key_value_get(key, round(timeout * 1000))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"process 0 did not finish within {timeout:g} s: {name}; see its log"
        ) from error
    if failure != _DONE:
        raise UserError(failure)
    return None


def _surroundings(environ: Mapping[str, str]) -> str:
    """What this process was started by, if it starts several; "" otherwise."""
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "Open MPI"
    step = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    # A batch script, outside of srun, has the tasks of the job in its environment, but is alone.
    if all(name in environ for name in step) and int(environ.get("SLURM_NTASKS", 1)) > 1:
        return "SLURM"
    on_cpu = environ.get("JAX_PLATFORMS", "") == "cpu"
    if not on_cpu and importlib.util.find_spec("libtpu") is not None:
        from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm

        if running_in_cloud_tpu_vm:
            return "Cloud TPU"
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        return "Kubernetes"
    return ""


def _ranked(known: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """With the numbers that are in plain sight: the coordinator may then be all that is given."""
    for index, count in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("JOB_COMPLETION_INDEX", ""),
    ):
        if index in environ:
            found = {"process_id": environ[index], "process_count": environ.get(count)}
            return {n: found.get(n) if value is None else value for n, value in known.items()}
    return known


def _detected(around: str, coordinator: Any, index: Any, count: Any, timeout: float):
    """(coordinator, index, count) with what is None filled in as JAX finds it."""
    # The way into JAX's table of clusters: its public function connects at once, without saying
    # whom it waits for.
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(
            coordinator, count, index, None, None, round(timeout)
        )
    except Exception as error:  # of many kinds: sockets, HTTP, Kubernetes' own
        raise UserError(
            f"this looks like {around}, but the other processes could not be found out "
            f"({error}): give --coordinator, --process-id and --process-count"
        ) from error
    coordinator, count, index = found[:3]
    return coordinator, index, count


def _own_devices(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Of a host that several processes share, each takes the device of its own local number."""
    if environ.get("JAX_LOCAL_DEVICE_IDS"):
        return tuple(map(int, environ["JAX_LOCAL_DEVICE_IDS"].split(",")))
    if int(environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1)) > 1:
        return (int(environ["OMPI_COMM_WORLD_LOCAL_RANK"]),)
    # "2(x3),1": two tasks on each of three nodes and one on another.
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", "1"))
    if "SLURM_LOCALID" in environ and tasks.partition("(")[0] not in ("", "1"):
        return (int(environ["SLURM_LOCALID"]),)
    return None


def _client() -> Any:
    """The connection to process 0's service, through which barriers and short texts go."""
    # JAX offers it to nobody by a public name; Orbax goes the same way.
    from jax._src import distributed

    return distributed.global_state.client

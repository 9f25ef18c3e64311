"""Starting a run, or a sweep, on many machines.

    python -m capjax.launch slurm --nodes 4 --gpus-per-node 8 --time 24:00:00 -- ARGUMENTS
    python -m capjax.launch gke --cluster C --tpu-type v5p-256 --image IMAGE -- ARGUMENTS
    python -m capjax.launch hosts --hosts a,b,c -- ARGUMENTS

ARGUMENTS are those of `python -m capjax.train`. --dry-run prints what would be done, to the
letter, and does nothing. --sweep runs every point of the config's get_hyper() (`capjax.sweep`): an
array job on SLURM, a workload a point on GKE.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from capjax.errors import UserError, exit_cleanly
from capjax.launch import gke, hosts, slurm
from capjax.launch.job import Job, make_job


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    args = _parser().parse_args(argv)
    job = make_job(args.arguments, args.sweep, args.setup, args.name)
    return args.run(job, args)


def _slurm(job: Job, args: argparse.Namespace) -> int:
    script = slurm.script(
        job,
        nodes=args.nodes,
        processes_per_node=args.processes_per_node,
        gpus_per_node=args.gpus_per_node,
        time=args.time,
        partition=args.partition,
        grace_seconds=args.grace,
        at_once=args.at_once,
        extra=tuple(args.sbatch or ()),
    )
    if args.dry_run:
        print(f"sbatch <<'END'\n{script}END")
        return 0
    _require("sbatch", "run this on a login node of the cluster")
    return subprocess.run(["sbatch"], input=script, text=True).returncode


def _gke(job: Job, args: argparse.Namespace) -> int:
    for index in range(job.points) if job.points else (None,):
        words = gke.command(
            job,
            cluster=args.cluster,
            tpu_type=args.tpu_type,
            device_type=args.device_type,
            slices=args.slices,
            image=args.image,
            project=args.project,
            zone=args.zone,
            restarts=args.restarts,
            grace_seconds=args.grace,
            index=index,
        )
        if args.dry_run:
            print(shlex.join(words))
            continue
        _require("xpk", "pip install xpk")
        code = subprocess.run(words).returncode
        if code:
            return code
    return 0


def _hosts(job: Job, args: argparse.Namespace) -> int:
    if job.points:
        raise UserError(
            "a list of hosts runs one run at a time: take --sweep away, or run capjax.sweep on each"
        )
    names = [name for name in args.hosts.split(",") if name]
    if args.hosts_file:
        try:
            names += Path(args.hosts_file).read_text().split()
        except OSError as error:
            raise UserError(f"cannot read {args.hosts_file!r}: {error.strerror}") from error
    planned = hosts.plan(job, names, args.directory, args.port)
    if args.dry_run:
        for host in planned:
            print(shlex.join(host.words))
        return 0
    _require("ssh", "install an ssh client")
    return hosts.start(planned, args.restarts)


def _require(program: str, remedy: str) -> None:
    if not shutil.which(program):
        raise UserError(f"there is no {program} here: {remedy}, or see --dry-run")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capjax.launch",
        description="Start one run on many machines. --dry-run prints what would be done.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(required=True, metavar="slurm | gke | hosts")
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("--dry-run", action="store_true", help="print it, do nothing")
    common.add_argument("--sweep", action="store_true", help="all points of get_hyper()")
    common.add_argument("--name", default="", help="of the job; else from the config's file")
    common.add_argument("--setup", default="", help="shell commands before the run")
    common.add_argument("arguments", nargs="*", metavar="-- ARGUMENTS", help="of capjax.train")

    one = kinds.add_parser("slurm", parents=[common], allow_abbrev=False)
    one.add_argument("--nodes", type=int, default=1)
    one.add_argument("--processes-per-node", type=int, default=1)
    one.add_argument("--gpus-per-node", type=int, default=0)
    one.add_argument("--time", default="24:00:00", help="the limit, after which it is requeued")
    one.add_argument("--partition", default="")
    one.add_argument("--grace", type=int, default=180, help="seconds to save before the limit")
    one.add_argument("--at-once", type=int, default=0, help="points of a sweep; 0: any number")
    one.add_argument("--sbatch", action="append", metavar="--OPTION=VALUE", help="any other one")
    one.set_defaults(run=_slurm)

    one = kinds.add_parser("gke", parents=[common], allow_abbrev=False)
    one.add_argument("--cluster", required=True)
    one.add_argument("--tpu-type", default="", help="e.g. v5p-256")
    one.add_argument("--device-type", default="", help="of GPUs, e.g. h100-80gb-8")
    one.add_argument("--slices", type=int, default=1, help="of TPUs; nodes of GPUs")
    one.add_argument("--image", required=True, help="a Docker image that holds this repository")
    one.add_argument("--project", default="")
    one.add_argument("--zone", default="")
    one.add_argument("--restarts", type=int, default=100)
    one.add_argument("--grace", type=int, default=180, help="seconds between SIGTERM and SIGKILL")
    one.set_defaults(run=_gke)

    one = kinds.add_parser("hosts", parents=[common], allow_abbrev=False)
    one.add_argument("--hosts", default="", metavar="A,B,C", help="the first one coordinates")
    one.add_argument("--hosts-file", default="", metavar="FILE", help="a host a line")
    one.add_argument("--directory", default=os.getcwd(), help="on each host; default: this one's")
    one.add_argument("--port", type=int, default=8476, help="of the coordinator")
    one.add_argument("--restarts", type=int, default=0)
    one.set_defaults(run=_hosts)
    return parser


if __name__ == "__main__":
    exit_cleanly(main)

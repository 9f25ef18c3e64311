"""The flags that say which of several processes this is; see `capjax.parallel.processes`.

Apart from there, so that --help need not wait for JAX.
"""

from __future__ import annotations

import argparse

START_SECONDS = 300.0


def add(parser: argparse.ArgumentParser) -> None:
    """--coordinator, --process-id, --process-count and --start-timeout."""
    group = parser.add_argument_group(
        "several processes",
        "Found out by itself under SLURM, Open MPI, Kubernetes and on a Cloud TPU.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="process 0's host, a port of it")
    group.add_argument("--process-id", type=int, metavar="I", help="this process, from 0")
    group.add_argument("--process-count", type=int, metavar="N", help="how many there are")
    group.add_argument(
        "--start-timeout",
        type=float,
        default=START_SECONDS,
        metavar="SECONDS",
        help=f"to wait for the other processes (default: {START_SECONDS:g})",
    )

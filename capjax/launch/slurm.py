"""SLURM: a batch script of one process a node (or a GPU), requeued when it was told to stop.

Before the time limit SLURM sends SIGUSR1 to the script, which passes SIGTERM on to the run; the run
saves and exits with `RESTART`, and the script requeues its job: the same command goes on. A job
that was preempted is requeued by SLURM itself. One that was cancelled exits with the same code but
is not in state RUNNING any more, and stays cancelled. A sweep becomes an array job, a task a point.
"""

from __future__ import annotations

import shlex

from capjax.launch.job import Job
from capjax.signals import RESTART


def script(
    job: Job,
    *,
    nodes: int,
    processes_per_node: int,
    gpus_per_node: int,
    time: str,
    partition: str,
    grace_seconds: int,
    at_once: int,
    extra: tuple[str, ...] = (),
) -> str:
    """The batch script. extra: further options of sbatch, such as --account=name."""
    options = [
        f"--job-name={job.name}",
        f"--nodes={nodes}",
        f"--ntasks-per-node={processes_per_node}",
        f"--time={time}",
        f"--signal=B:USR1@{grace_seconds}",
        "--requeue",
        "--open-mode=append",
    ]
    if gpus_per_node:
        options.append(f"--gpus-per-node={gpus_per_node}")
    if partition:
        options.append(f"--partition={partition}")
    if job.points:
        limit = f"%{at_once}" if at_once else ""
        options += [f"--array=0-{job.points - 1}{limit}", "--output=%x-%A_%a.log"]
    else:
        options.append("--output=%x-%j.log")
    options += extra
    # Of several processes each must be killed if one is lost: the others would wait for it.
    srun = ["srun", "--kill-on-bad-exit=1"]
    index = '--index="$SLURM_ARRAY_TASK_ID"' if job.points else ""
    inner = job.command(index) if index else job.command()
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        *([job.setup] if job.setup else []),
        f"{shlex.join(srun)} {inner} &",
        "run=$!",
        "trap 'kill -TERM $run' USR1",
        "wait $run; code=$?",
        "# A trapped signal ends the first wait, not the run.",
        "while kill -0 $run 2>/dev/null; do wait $run; code=$?; done",
        'state=$(squeue --noheader --job "$SLURM_JOB_ID" --format=%T)',
        f'if [ "$code" -eq {RESTART} ] && [ "$state" = RUNNING ]; then',
        '    scontrol requeue "$SLURM_JOB_ID"',
        "fi",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"

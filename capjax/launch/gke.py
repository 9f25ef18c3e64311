"""GKE by xpk: one workload, restarted on `RESTART` and on what a lost node leaves.

xpk restarts a workload on the exit codes 42 and 127 to 255; ours is added. Kubernetes sends SIGTERM
and leaves the grace period before it kills.
"""

from __future__ import annotations

from capjax.errors import UserError
from capjax.launch.job import Job
from capjax.signals import RESTART


def command(
    job: Job,
    *,
    cluster: str,
    tpu_type: str,
    device_type: str,
    slices: int,
    image: str,
    project: str,
    zone: str,
    restarts: int,
    grace_seconds: int,
    index: int | None = None,
) -> list[str]:
    """The words of `xpk workload create`; `index` is a point of a sweep."""
    if bool(tpu_type) == bool(device_type):
        raise UserError("give one of --tpu-type (v5p-256) and --device-type (h100-80gb-8)")
    kind = f"--tpu-type={tpu_type}" if tpu_type else f"--device-type={device_type}"
    count = f"--num-slices={slices}" if tpu_type else f"--num-nodes={slices}"
    suffix, more = ("", ()) if index is None else (f"-{index}", (f"--index={index}",))
    inner = job.with_setup(job.command(*more))
    words = [
        *("xpk", "workload", "create"),
        f"--cluster={cluster}",
        # Kubernetes' limit, with room for what xpk appends.
        f"--workload={job.name[: 40 - len(suffix)].rstrip('-')}{suffix}",
        kind,
        count,
        f"--docker-image={image}",
        f"--max-restarts={restarts}",
        f"--restart-on-exit-codes={RESTART}",
        f"--termination-grace-period-seconds={grace_seconds}",
    ]
    words += [f"--project={project}"] if project else []
    words += [f"--zone={zone}"] if zone else []
    return [*words, f"--command={inner}"]

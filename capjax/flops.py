"""Floating-point operations of a training step, counted twice, and the devices' peak.

By formula: three times the matrix products and convolutions of the forward pass (going back, each
has two of its size), where a product of [M,K] and [K,N] counts 2 M K N. That is what the model
needs; what rematerialisation computes again is not in it (PaLM, Chowdhery et al. 2022, appendix
B). Of parameters that stay frozen too much is counted: their products have at most one of their
size going back.

By the compiled program: XLA's cost analysis, everything that is computed, elementwise work and
rematerialisation too. A loop's body is counted once, however often it runs, so with
`accumulate_steps` or a scan it says too little.

MFU is the formula's operations a second by the peak of all devices; HFU the program's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core

# Dense bfloat16 operations a second of one JAX device, from the makers' data sheets. Of a TPU v2
# or v3, a device is one of the chip's two cores. The first name that a device's begins with counts.
_PEAKS = {
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989.4e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "NVIDIA A10G": 70e12,
}


@dataclass(frozen=True)
class Flops:
    """Operations of one step over all devices; 0 where they could not be counted."""

    formula: float
    program: float
    peak: float  # a second, of all devices; 0 if it is not known

    def rates(self, step_seconds: float) -> dict[str, float]:
        """What goes to the log beside the seconds of a step."""
        values = {}
        for name, count, share in (
            ("model", self.formula, "mfu"),
            ("program", self.program, "hfu"),
        ):
            if count:
                values[f"{name}_flops_per_second"] = count / step_seconds
                if self.peak:
                    values[share] = count / step_seconds / self.peak
        return values

    def __str__(self) -> str:
        counts = [
            f"{count / 1e9:.4g} GFLOP {how}"
            for count, how in ((self.formula, "by formula"), (self.program, "by its program"))
            if count
        ]
        peak = f"peak {self.peak / 1e12:.4g} TFLOP/s in bfloat16"
        unknown = f"the peak of {jax.devices()[0].device_kind!r} is not known, so there is no MFU"
        return f"a step takes {' or '.join(counts)}; {peak if self.peak else unknown}"


def count(
    loss: Callable[..., Any], params: Any, batch: Any, step: Any, arguments: tuple, devices: int
) -> Flops:
    """Of a step on arrays or shapes like these, on so many devices of the first one's kind.

    loss: (params, batch, rng) -> anything, as `Task.loss`. step: the jitted step, and `arguments`
    what it has been called with, by shape: its program is compiled already.
    """
    forward = jax.make_jaxpr(loss)(params, batch, jax.random.key(0))
    return Flops(
        formula=3.0 * products(forward.jaxpr),
        program=program_flops(step.lower(*arguments).compile()) * devices,
        peak=peak_flops(jax.devices()[0]) * devices,
    )


def products(jaxpr: Any) -> int:
    """Operations of all matrix products and convolutions of a traced function.

    A scan's body counts as often as it runs, a while loop's once, of branches the largest.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, list(core.jaxprs_in_params(equation.params))
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            summed = math.prod(shape[axis] for axis in contracted)
            total += 2 * summed * equation.outvars[0].aval.size
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            out_axis = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * kernel.size // kernel.shape[out_axis] * equation.outvars[0].aval.size
        elif name == "cond":
            total += max(map(products, inner), default=0)
        elif name == "shard_map":
            devices = math.prod(equation.params["mesh"].shape.values())
            total += devices * sum(map(products, inner))
        else:
            times = equation.params["length"] if name == "scan" else 1
            total += times * sum(map(products, inner))
    return total


def program_flops(compiled: Any) -> float:
    """XLA's count of one device's program; 0 where the backend gives none."""
    return max(float((compiled.cost_analysis() or {}).get("flops", 0.0)), 0.0)


def peak_flops(device: Any) -> float:
    """Dense bfloat16 operations a second; 0 for what is not in the table, such as CPUs."""
    # Longer names first: an H100 PCIe is no H100 with another clock.
    for name in sorted(_PEAKS, key=len, reverse=True):
        if device.device_kind.startswith(name):
            return _PEAKS[name]
    return 0.0


def device_memory() -> dict[str, int]:
    """Bytes in use now and at most so far, of the fullest device of this process; {} on CPUs."""
    stats = [s for s in (device.memory_stats() for device in jax.local_devices()) if s]
    names = {"device_bytes": "bytes_in_use", "device_peak_bytes": "peak_bytes_in_use"}
    return {
        name: max(s[key] for s in stats)
        for name, key in names.items()
        if stats and all(key in s for s in stats)
    }

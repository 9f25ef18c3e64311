"""Will it fit? Compiles a config's step of training for a mesh and says what each device holds.

  python -m capjax.fits --config configs/guiding/coco_coca.py --topology v5e:8x8 \\
      --config.mesh.fsdp=64 --config.mesh.data=1 --config.batch_size=1024 --memory 16

Nothing is trained and no array is made: the step is compiled for abstract ones, with the mesh, the
sharding, the precision and the rematerialisation of the config, and the compiler says what it
needs. --topology compiles for TPUs that are not there, such as v5e:8x8, v5:4x4x4 (v5p) or v6e:4x4,
and needs libtpu alone (pip install 'capjax[tpu]'); --devices simulates so many on this machine's
CPU; without either the step is compiled for the devices that are there. The data need not be there
either, unless the tokenizer is read from files.

Parameters, optimiser and batch are exact. Temporaries (activations, gradients, gathered kernels)
are those of the compiler that was asked. XLA for CPUs computes bfloat16 in float32 and undoes
rematerialisation, so that a simulated number is an upper bound, often a multiple.

Exit code 0, or 1 if --memory is not enough. Raises `UserError` as training would.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capjax.errors import UserError, exit_cleanly

GIB = 2**30
# Only the plan is wanted: the machine code of the simulated step may be bad, and comes sooner.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class Fit:
    """What a step needs; bytes are those of one device."""

    parameters: int  # numbers, in the whole model
    mesh: dict[str, int]
    parameter_bytes: int
    optimizer_bytes: int
    average_bytes: int  # of the moving average
    batch_bytes: int
    temporary_bytes: int

    @property
    def bytes(self) -> int:
        """All of it. The new state takes the place of the old one."""
        return (
            self.parameter_bytes
            + self.optimizer_bytes
            + self.average_bytes
            + self.batch_bytes
            + self.temporary_bytes
        )


@dataclass(frozen=True)
class _Sizes:
    """What a model asks of a tokenizer that is trained on the data's captions."""

    vocab_size: int
    max_length: int
    special_tokens: Any


def fit(
    config: Any,
    compiler_options: dict[str, Any] | None = None,
    devices: Sequence[Any] | None = None,
) -> Fit:
    """What the config's step needs on these devices (None: those that JAX has)."""
    import jax

    from capjax import runs
    from capjax.config_checks import validate
    from capjax.optimizers import make_optimizer, make_schedule
    from capjax.parallel import mesh as mesh_lib
    from capjax.parallel.sharding import bytes_per_device
    from capjax.parameter_groups import frozen
    from capjax.train_step import abstract_state, make_step

    validate(config)
    mesh = mesh_lib.make_mesh(config.mesh, devices)
    mesh_lib.check_batch(mesh, config.batch_size, config.accumulate_steps)
    model = runs.make_model(config, _tokenizer(config))
    task = runs.make_task(config, model)
    schedule = make_schedule(config.optimizer, config.steps)
    tx = make_optimizer(config.optimizer, schedule)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, tx, config.ema_decay, config.sharding, mesh)
    # Not on the mesh, whose devices may not be there: the step begins with a random key.
    step = make_step(
        task,
        tx,
        schedule,
        seed=config.seed,
        accumulate_steps=config.accumulate_steps,
        ema_decay=config.ema_decay,
        abstract=abstract,
        mesh=mesh,
        frozen=frozen(config.optimizer, abstract["params"]),
    )
    batch = _batch(config, model, mesh_lib.batch_sharding(mesh))
    with jax.set_mesh(mesh):
        memory = step.lower(abstract, batch).compile(compiler_options).memory_analysis()
    return Fit(
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract["params"])),
        mesh=dict(mesh.shape),
        parameter_bytes=bytes_per_device(abstract["params"]),
        optimizer_bytes=bytes_per_device((abstract["opt_state"], abstract["step"])),
        average_bytes=bytes_per_device(abstract.get("ema", {})),
        batch_bytes=bytes_per_device(batch),
        # What of the outputs is not written over the state that was given comes on top.
        temporary_bytes=memory.temp_size_in_bytes
        + max(0, memory.output_size_in_bytes - memory.alias_size_in_bytes),
    )


def _tokenizer(config: Any) -> Any:
    from capjax import config as config_lib
    from capjax.special_tokens import SpecialTokens

    section = config.tokenizer
    if section.name == "capjax.data.tokenizer":
        return _Sizes(section.vocab_size, section.max_length, SpecialTokens())
    return config_lib.instantiate(
        section, "make", where="config.tokenizer", captions=lambda count: iter(())
    )


def _batch(config: Any, model: Any, sharding: Any) -> dict[str, Any]:
    """The shapes of a batch with all that a task may ask for; the compiler drops the rest."""
    import jax
    import numpy as np

    rows, side = config.batch_size, config.data.image_size
    shapes = {
        "image": ((rows, side, side, 3), np.uint8),
        "tokens": ((rows, model.max_length), np.int32),
        "source": ((rows,), np.int32),
        "class_id": ((rows,), np.int32),
    }
    return {
        name: jax.ShapeDtypeStruct(shape, kind, sharding=sharding)
        for name, (shape, kind) in shapes.items()
    }


def described(topology: str) -> list[Any]:
    """The devices of TPUs that are not there; UserError without libtpu, or for no such slice."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--topology needs libtpu: pip install 'capjax[tpu]', or use --devices")
    # libtpu takes this host for a TPU's and asks the cloud who it is, unless it is told not to.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it only compiles, for no chip
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, platform="tpu").devices)
    except Exception as error:  # jaxlib's own kinds, which have no common one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--topology {topology!r} is none that libtpu knows ({reason}): write it like v5e:8x8, "
            "v5:4x4x4 or v6e:4x4"
        ) from error


def text(found: Fit, memory: float | None) -> str:
    """The table, and the verdict if there is a limit in GiB."""
    mesh = ", ".join(f"{name}: {count}" for name, count in found.mesh.items())
    lines = [f"{found.parameters:,} parameters on a mesh of {mesh}", "", "GiB on each device"]
    for label, size in (
        ("parameters", found.parameter_bytes),
        ("optimiser", found.optimizer_bytes),
        ("moving average", found.average_bytes),
        ("batch", found.batch_bytes),
        ("temporaries", found.temporary_bytes),
        ("together", found.bytes),
    ):
        lines.append(f"  {label:<15}{size / GIB:10.3f}")
    if memory is not None:
        spare = memory - found.bytes / GIB
        lines += ["", f"it fits, with {spare:.2f} GiB to spare" if spare >= 0 else _remedy(spare)]
    return "\n".join(lines)


def _remedy(spare: float) -> str:
    return (
        f"it does not fit: {-spare:.2f} GiB too much. More devices under config.mesh.fsdp or "
        "tensor divide the state; a smaller batch_size, accumulate_steps, config.model.remat='full'"
        " and dtype='bfloat16' make the temporaries smaller"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 if it fits or nothing was asked, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.fits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py[:ARG]")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--devices", type=int, metavar="N", help="so many, simulated on the CPU")
    where.add_argument("--topology", metavar="KIND:AxB", help="TPUs that are not there: v5e:8x8")
    parser.add_argument("--memory", type=float, metavar="GIB", help="of one device")
    parser.add_argument("--json", metavar="FILE", help="where to write the numbers, in bytes")
    args, overrides = parser.parse_known_args(argv)
    options = None
    if args.devices is not None:
        if args.devices < 1:
            raise UserError(f"--devices is {args.devices}: give 1 or more")
        # Read when JAX looks for devices, which it has not done yet.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={args.devices}"
        os.environ["JAX_PLATFORMS"] = "cpu"
        options = _QUICK
    if args.topology:
        os.environ["JAX_PLATFORMS"] = "cpu"
    from capjax import config as config_lib

    devices = described(args.topology) if args.topology else None
    found = fit(config_lib.load(args.config, overrides), options, devices)
    print(text(found, args.memory))
    if args.json:
        from capjax.whole_file import whole_file

        with whole_file(args.json) as file:
            file.write(json.dumps(dataclasses.asdict(found) | {"bytes": found.bytes}) + "\n")
    return int(args.memory is not None and found.bytes > args.memory * GIB)


if __name__ == "__main__":
    exit_cleanly(main)
